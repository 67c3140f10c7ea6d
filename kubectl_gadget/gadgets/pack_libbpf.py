"""Builds libbpf with libelf and zlib into one shared object for each architecture and C library.

The objects need nothing but the C library: glibc 2.28 or newer, or musl. So an agent runs in any image with Python, and
`--local` needs no package of the system. Sources are Debian's, by apt in mmdebstrap, without root; each must have the
hash below. The compiler is zig's C compiler, which has the headers and the symbols of both C libraries for each
architecture. Equal sources give equal bytes.

    BUILT/sources/                            the archives from Debian; fetched when missing
    BUILT/libraries/libraries.json            the sources, and what the objects were made from
    BUILT/libraries/SOURCE.licence
    BUILT/libraries/ARCHITECTURE/libbpf-LIBC.so.1

The trap: when mmdebstrap cannot write its whole archive, it sends SIGHUP to its process group, which may be that of
make and all tests.
"""

import ast
import hashlib
import importlib.metadata
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kubectl_gadget.errors import GadgetError
from kubectl_gadget.gadgets.compiler import write_json
from kubectl_gadget.gadgets.load import ARCHITECTURES

ZIG = "0.15.2"
"""The version of ziglang on PyPI; others give other bytes."""
SUITE = "trixie"
LIBCS = {"glibc": "gnu.2.28", "musl": "musl"}
"""C libraries as the files' names have them, and as zig names them."""
SONAME = "libbpf-gadget.so.1"


class SourcePackage(NamedTuple):
    """A source package."""

    version: str
    archive: str
    """the archive's name in Debian"""
    sha256: str
    folder: str
    """the archive's only folder"""
    licence: str
    """the SPDX expression that we chose where there is a choice"""
    licences: tuple[str, ...]
    """files of the archive"""


SOURCES = {
    "elfutils": SourcePackage(
        "0.192",
        "elfutils_0.192.orig.tar.bz2",
        "616099beae24aba11f9b63d86ca6cc8d566d968b802391334c91df54eab416b4",
        "elfutils-0.192",
        "LGPL-3.0-or-later",
        ("COPYING-LGPLV3", "COPYING"),
    ),
    "libbpf": SourcePackage(
        "1.5.0",
        "libbpf_1.5.0.orig.tar.gz",
        "53492aff6dd47e4da04ef5e672d753b9743848bdb38e9d90eafbe190b7983c44",
        "libbpf-1.5.0",
        "BSD-2-Clause",
        ("LICENSE", "LICENSE.BSD-2-Clause"),
    ),
    "zlib": SourcePackage(
        "1.3.1",
        "zlib_1.3.dfsg+really1.3.1.orig.tar.gz",
        "60dd315c07f616887caa029408308a018ace66e3d142726a97db164b3b8f69fb",
        "zlib-1.3.1",
        "Zlib",
        ("LICENSE",),
    ),
}
_CHANGES = {
    # A symbol's offset near 2^64 passes the check of the sum (CVE-2025-29481).
    "libbpf-1.5.0/src/libbpf.c": (
        "if (sec_off + prog_sz > sec_sz) {",
        "if (sec_off > sec_sz || prog_sz > sec_sz - sec_off) {",
    ),
}
"""File: a text that it has once, and the text in its place."""
_CONFIG = """
#include <features.h>
#ifdef __GLIBC__
#define HAVE_DECL_RAWMEMCHR 1
#endif
#define HAVE_DECL_MEMPCPY 1
#define HAVE_DECL_MEMRCHR 1
#define HAVE_DECL_POWEROF2 1
#define HAVE_DECL_REALLOCARRAY 1
#define HAVE_ERR_H 1
#define HAVE_GCC_STRUCT 1
#define HAVE_VISIBILITY 1
#define PACKAGE_NAME "elfutils"
#include <eu-config.h>
"""
"""config.h of elfutils. Without USE_ZSTD, a section compressed with zstd is an error; we read none."""
_FILES = (
    "libbpf-1.5.0/src/*.c",
    "elfutils-0.192/libelf/*.c",
    "elfutils-0.192/lib/eu-search.c",
    "elfutils-0.192/lib/next_prime.c",
    *(f"zlib-1.3.1/{name}.c" for name in ("adler32", "crc32", "deflate", "gzclose", "gzlib", "gzread", "inffast")),
    *(f"zlib-1.3.1/{name}.c" for name in ("inflate", "inftrees", "trees", "zutil")),
)
_OPTIONS = shlex.split(
    "-shared -fPIC -O2 -g0 -w -s -fno-sanitize=all -fno-unwind-tables -fno-asynchronous-unwind-tables"
    " -ffunction-sections -fdata-sections -fvisibility=hidden -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64"
    " -D_LARGEFILE64_SOURCE -DHAVE_CONFIG_H -DHAVE_UNISTD_H -DHAVE_STDARG_H -DHAVE_HIDDEN -DNO_GZCOMPRESS"
    " -Wl,--gc-sections -Wl,--build-id=none -Wl,--version-script=exports -Wl,-soname," + SONAME
) + [
    f"-I{folder}"
    for folder in (
        ".",
        "libbpf-1.5.0/include",
        "libbpf-1.5.0/include/uapi",
        "elfutils-0.192/libelf",
        "elfutils-0.192/lib",
        "zlib-1.3.1",
    )
]
_SECONDS = 1800
"""A build takes a minute of CPU time."""


def libbpf_path(machine: str, libc: str) -> str:
    """The object's path in the folder of libraries."""
    return f"{machine}/libbpf-{libc}.so.1"


def is_built(package: Path, built: Path) -> bool:
    """True if the objects in `built` are those of the sources, options and exports."""
    try:
        made: str = json.loads((built / "libraries" / "libraries.json").read_bytes())["made_from"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return made == _made_from(package)


def build(package: Path, built: Path) -> Path:
    """Builds what changed, and returns the folder of libraries. `package` is the folder kubectl_gadget. Raises
    GadgetError."""
    folder = built / "libraries"
    if is_built(package, built):
        return folder
    _check_zig()
    archives = _archives(built / "sources")
    with tempfile.TemporaryDirectory(prefix="libraries-", dir=built) as name:
        work, made = Path(name) / "work", Path(name) / "made"
        _unpack(archives, work)
        (work / "exports").write_text(
            "{ global: " + " ".join(f"{one};" for one in _exports(package)) + " local: *; };\n"
        )
        (work / "config.h").write_text(_CONFIG)
        for machine in ARCHITECTURES:
            (made / machine).mkdir(parents=True)
            for libc in LIBCS:
                _compile(work, machine, libc, made / libbpf_path(machine, libc), Path(name) / "cache")
        for source, one in SOURCES.items():
            texts = [(work / one.folder / file).read_bytes() for file in one.licences]
            (made / f"{source}.licence").write_bytes(b"\n".join(texts))
        sources = [
            {"name": name, "version": one.version, "licence": one.licence, "archive": one.archive, "sha256": one.sha256}
            for name, one in SOURCES.items()
        ]
        write_json(made / "libraries.json", {"made_from": _made_from(package), "sources": sources})
        if not is_built(package, built):  # another build may have been faster
            if folder.is_dir():
                folder.rename(Path(name) / "old")
            made.rename(folder)
    return folder


def _made_from(package: Path) -> str:
    """The hash of all that decides the objects' bytes."""
    inputs = (ZIG, LIBCS, SOURCES, _CHANGES, _CONFIG, _FILES, _OPTIONS, _exports(package))
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()


def _exports(package: Path) -> list[str]:
    """The functions that the agent calls."""
    tree = ast.parse((package / "agent" / "bpf" / "libbpf.py").read_bytes())
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "SIGNATURES":
            assert isinstance(node.value, ast.Dict)
            return sorted(ast.literal_eval(key) for key in node.value.keys if key)
    raise GadgetError("agent/bpf/libbpf.py has no SIGNATURES")


def _check_zig() -> None:
    try:
        found = importlib.metadata.version("ziglang")
    except importlib.metadata.PackageNotFoundError:
        found = ""
    if found != ZIG:
        what = f"zig {found} is installed" if found else "zig, whose C compiler builds libbpf, is not installed"
        raise GadgetError(f"{what}; {ZIG} is needed", f"{sys.executable} -m pip install ziglang=={ZIG}")


def _archives(folder: Path) -> dict[str, Path]:
    """The archives of all sources by name; fetched if one is missing."""
    if any(_hash(folder / one.archive) != one.sha256 for one in SOURCES.values()):
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in fetched():
            temporary = folder / f"{name}.{os.getpid()}"
            temporary.write_bytes(data)
            temporary.replace(folder / name)
    for name, one in SOURCES.items():
        if (found := _hash(folder / one.archive)) != one.sha256:
            what = f"has the SHA-256 {found}, not {one.sha256}" if found else "is not in Debian any more"
            raise GadgetError(f"{one.archive}, the source of {name}, {what}")
    return {name: folder / one.archive for name, one in SOURCES.items()}


def _hash(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def fetched() -> Iterator[tuple[str, bytes]]:
    """The archives from Debian: their names and contents."""
    get = f'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -qq source --download-only --tar-only {" ".join(SOURCES)}'
    command = ["mmdebstrap", "--quiet", "--variant=custom"]
    command += [
        '--setup-hook=sed "s/^deb /deb-src /" "$1/etc/apt/sources.list" >"$1/etc/apt/sources.list.d/source.list"'
    ]
    command += [f'--customize-hook=mkdir "$1/source" && cd "$1/source" && {get}', SUITE, "-"]
    try:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0
        ) as process:
            try:
                found, said = process.communicate(timeout=_SECONDS)
            except BaseException:
                os.killpg(process.pid, signal.SIGINT)
                raise
    except FileNotFoundError:
        what = "mmdebstrap, which takes libbpf's source from Debian, is not installed"
        raise GadgetError(what, "apt-get install mmdebstrap") from None
    except subprocess.TimeoutExpired:
        raise GadgetError(f"mmdebstrap did not finish within {_SECONDS} s") from None
    if process.returncode:
        last = (said.decode(errors="replace").strip().splitlines() or ["it printed nothing"])[-1]
        raise GadgetError(f"cannot get libbpf's source from Debian: {last}", "check the network")
    wanted = {one.archive for one in SOURCES.values()}
    with tarfile.open(fileobj=io.BytesIO(found)) as tar:
        for member in tar.getmembers():
            if (name := Path(member.name).name) in wanted and (file := tar.extractfile(member)):
                yield name, file.read()


def _unpack(archives: dict[str, Path], work: Path) -> None:
    for path in archives.values():
        with tarfile.open(path) as tar:
            tar.extractall(work, filter="data")
    for name, (old, new) in _CHANGES.items():
        text = (work / name).read_text()
        assert text.count(old) == 1
        (work / name).write_text(text.replace(old, new))


def _compile(work: Path, machine: str, libc: str, target: Path, cache: Path) -> None:
    """Paths are relative to the sources, since libbpf's and libelf's assertions have them."""
    files = sorted(path.relative_to(work).as_posix() for pattern in _FILES for path in work.glob(pattern))
    command = [sys.executable, "-m", "ziglang", "cc", "-target", f"{machine}-linux-{LIBCS[libc]}", *_OPTIONS]
    environment = os.environ | {"ZIG_GLOBAL_CACHE_DIR": str(cache), "ZIG_LOCAL_CACHE_DIR": str(cache)}
    try:
        subprocess.run(
            [*command, *files, "-o", str(target)],
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=_SECONDS,
        )
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()
        raise GadgetError(f"libbpf cannot be compiled for {machine} and {libc}:\n{said}") from None
    except subprocess.TimeoutExpired:
        raise GadgetError(f"zig did not compile libbpf within {_SECONDS} s") from None
