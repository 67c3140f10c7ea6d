"""Runs clang and bpftool: compiles a BPF program in C to an object for one architecture, and reads the object's types.

The trap: in clang's output, all variables of .rodata have offset 0 in BTF. `bpftool gen object` links the object, which
sets the offsets and removes the debug information that only clang needs.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.gadgets.load import BUILT

CLANGS = ("clang-19", "clang", "clang-20", "clang-21", "clang-18", "clang-17")
INSTALL = "apt-get install clang-19 bpftool libbpf-dev"
_TARGETS = {"x86_64": "x86", "aarch64": "arm64"}
_SOURCE_TREE = Path(__file__).parent.parent.parent
_MOST_LINES = 20
"""The most lines of clang's messages that are shown."""


def find_clang() -> str | None:
    """The path of clang, or None."""
    return next((found for name in CLANGS if (found := shutil.which(name))), None)


def include_directory() -> Path:
    """The folder that contains gadget/record.h: in an installed package, else in the source tree."""
    installed = BUILT / "include"
    return installed if installed.is_dir() else _SOURCE_TREE / "bpf" / "include"


def compile_object(
    source: Path,
    architecture: str,
    target: Path,
    folders: Sequence[Path] = (),
    links: Sequence[Path] = (),
    headers: Sequence[str] = (),
) -> None:
    """Compiles `source` to `target`. Raises GadgetError when a tool is missing, else UsageError with clang's messages.

    `folders` are searched for headers before all others; `headers` are included in addition to the source's own;
    `links` are objects to link with.
    """
    clang = find_clang()
    if clang is None:
        raise GadgetError("clang, which compiles BPF programs, is not installed", INSTALL)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Two builds may run at the same time. The linker recognizes the type of a file by its name.
    compiled, linked = (target.with_suffix(f".{os.getpid()}.{step}.o") for step in ("compiled", "linked"))
    try:
        more = [word for folder in folders for word in ("-I", str(folder.resolve()))]
        more += [word for header in headers for word in ("-include", header)]
        _compile(clang, source.resolve(), architecture, compiled, more)
        objects = [str(compiled), *map(str, links)]
        _run([bpftool(), "gen", "object", str(linked), *objects], f"{source} does not link")
        linked.replace(target)
    finally:
        compiled.unlink(missing_ok=True)
        linked.unlink(missing_ok=True)


def _compile(clang: str, source: Path, architecture: str, target: Path, more: Sequence[str]) -> None:
    command = [clang, "-target", "bpf", "-mcpu=v3", "-g", "-O2", "-Wall", f"-D__TARGET_ARCH_{_TARGETS[architecture]}"]
    # The object contains source lines; it must not contain paths of this machine.
    command += [f"-ffile-prefix-map={source.parent}/=", f"-fdebug-compilation-dir={source.parent.name}"]
    command += [
        *more,
        "-I",
        str(include_directory()),
        *_system_headers(),
        "-c",
        source.name,
        "-o",
        str(target.resolve()),
    ]
    done = subprocess.run(command, cwd=source.parent, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    for header, package in (("bpf/bpf_helpers.h", "libbpf"), ("linux/bpf.h", "Linux"), ("asm/types.h", "Linux")):
        if f"'{header}' file not found" in done.stderr:
            raise GadgetError(f"the headers of {package} are missing: {header}", INSTALL)
    _check_not_killed(done, source)
    lines = done.stderr.strip().splitlines()[:_MOST_LINES]
    raise UsageError("\n".join([f"{source} does not compile for {architecture}:", *lines]))


def _check_not_killed(done: subprocess.CompletedProcess[str], source: Path) -> None:
    """Raises GadgetError if the compiler crashed or was killed, which does not mean that the source is wrong."""
    if done.returncode < 0:
        said = done.stderr.strip().splitlines()[:_MOST_LINES]
        name = signal.Signals(-done.returncode).name
        lines = [f"{done.args[0]} was ended by {name} while it compiled {source}", *said]
        raise GadgetError("\n".join(lines), f"{done.args[0]} --version; dmesg says why the kernel ends programs")


def _system_headers() -> list[str]:
    """Debian keeps asm/ in a folder per architecture, which clang does not search when it compiles for BPF."""
    if Path("/usr/include/asm/types.h").exists():
        return []
    return [
        f"-idirafter{folder.parent.parent}" for folder in sorted(Path("/usr/include").glob("*-linux-*/asm/types.h"))[:1]
    ]


def read_types(target: Path) -> list[dict[str, object]]:
    """The BTF of a linked object, in the format of `bpftool btf dump -j`."""
    text = _run([bpftool(), "btf", "dump", "-j", "file", str(target)], f"{target} has no readable BTF")
    try:
        types: list[dict[str, object]] = json.loads(text)["types"]
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        raise GadgetError(f"cannot parse bpftool's output about the types of {target}: {error!r}") from None
    return types


def bpftool() -> str:
    """The path of bpftool. Raises GadgetError when it is missing."""
    # Debian installs it in a folder that only root's PATH contains.
    path = shutil.which("bpftool") or shutil.which("bpftool", path="/usr/sbin:/sbin:/usr/local/sbin")
    if path is None:
        raise GadgetError("bpftool, which links BPF objects and reads their types, is not installed", INSTALL)
    return path


def _run(command: list[str], what: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise GadgetError(f"{what}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


# What each built file was made from, so that a build does nothing when nothing changed. Timestamps are useless here,
# since a checkout or an archive sets them at will; so contents are compared by hash.

_FILE = "inputs.json"
_HERE = Path(__file__).parent
_WITHOUT_LINES = " without lines"


class Inputs:
    """The inputs of the files below `built`. `source_lines`: whether objects keep the lines of their source."""

    def __init__(self, built: Path, source_lines: bool = True) -> None:
        self.source_lines = source_lines
        self._built = built
        self._path = built / _FILE
        self._digests: dict[str, str] = {}
        if self._path.is_file():
            try:
                self._digests = dict(json.loads(self._path.read_bytes()))
            except ValueError:
                # The file was truncated while it was written: everything is built again, and the file is rewritten.
                self._digests = {}

    def changed(self, target: Path, sources: Iterable[Path]) -> bool:
        """True if `target` has to be built again."""
        return not target.is_file() or self._digests.get(self._key(target)) != self._digest(target, sources)

    def made(self, target: Path, sources: Iterable[Path]) -> None:
        """Records that `target` was built; saved immediately."""
        self._digests.pop(self._key(target) + _WITHOUT_LINES, None)
        self._save(self._key(target), self._digest(target, sources))

    def has_lines(self, target: Path) -> bool:
        """True if the lines of an object are still to be removed."""
        return self._digests.get(self._key(target) + _WITHOUT_LINES) != self._digest_without_lines(target)

    def removed_lines(self, target: Path) -> None:
        """Records that they were; saved immediately."""
        self._save(self._key(target) + _WITHOUT_LINES, self._digest_without_lines(target))

    def keep_only(self, targets: Iterable[Path]) -> None:
        """Forgets all other targets, and removes those that are there: they would be packed into the wheel."""
        kept = {self._key(target) for target in targets}
        for target in (*self._built.glob("objects/*/*.bpf.o"), *self._built.glob("gadgets/*.json")):
            if self._key(target) not in kept:
                target.unlink()
        self._digests = {key: value for key, value in self._digests.items() if key.removesuffix(_WITHOUT_LINES) in kept}
        self._write()

    def _save(self, key: str, digest: str) -> None:
        self._digests[key] = digest
        self._write()

    def _write(self) -> None:
        write(self._path, json.dumps(self._digests, indent=1, sort_keys=True).encode())

    def _key(self, target: Path) -> str:
        return target.relative_to(self._built).as_posix()

    def _digest(self, target: Path, sources: Iterable[Path]) -> str:
        """The hash of the sources, and of everything that each object, or each schema, depends on."""
        is_object = target.suffix == ".o"
        digest = hashlib.sha256((_of_objects() if is_object else _of_schemas()).encode())
        if is_object and self.source_lines:
            digest.update(b"with lines")
        for source in sources:
            digest.update(b"\0" + source.name.encode() + b"\0" + source.read_bytes())
        return digest.hexdigest()

    def _digest_without_lines(self, target: Path) -> str:
        return _joined(self._digests[self._key(target)], [_HERE / "source_lines.py"])


def write(path: Path, data: bytes) -> None:
    """Writes a file atomically, unless its content is the same already."""
    if path.is_file() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(path)


def write_json(path: Path, value: object) -> None:
    """The same for JSON."""
    write(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


@cache
def _of_objects() -> str:
    return _joined(str(find_clang()), [*include_directory().rglob("*.h"), _HERE / "compiler.py"])


@cache
def _of_schemas() -> str:
    schema = _HERE / "schema.py"
    return _joined(_of_objects(), [*_HERE.glob("*.py"), *_HERE.glob("*.yaml"), schema])


def _joined(beginning: str, files: Iterable[Path]) -> str:
    digest = hashlib.sha256(beginning.encode())
    for path in sorted(files):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
