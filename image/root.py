"""The lower layer of the agent's image: Python and its dependencies, from Debian, without installing
anything.

mmdebstrap's variant `extract` unpacks packages and runs none of their scripts, so this works for a foreign architecture
too and takes seconds. What the agent cannot use is left out. The agent's root is read-only, so Python could never keep
compiled modules; every module is compiled here, and by the same Python version as the image's. Another trap: if
mmdebstrap cannot write its archive to the end, it sends SIGHUP to its whole process group, which may be that of make
and all tests.
"""

import fnmatch
import importlib.util
import marshal
import os
import re
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import IO

from archive import Layer
from packages import HOOK, INFO, STATUS, packages, status

PACKAGES = {
    "default": ["base-files", "python3-minimal", "libpython3-stdlib"],
    "bcc": [
        "base-files",
        "python3-minimal",
        "libpython3-stdlib",
        "python3-bpfcc",
        "bpfcc-tools",
        "bpftrace",
        "dash",
    ],
}
SUITE = "trixie"

_lines = (Path(__file__).parent / "left-out.txt").read_text().splitlines()
_left_out = re.compile("|".join(fnmatch.translate(line) for line in _lines if not line.startswith("#")))


def root_layer(architecture: str, variant: str, date: int) -> bytes:
    """The layer as an uncompressed tar. Raises SystemExit with one line if mmdebstrap is missing or fails."""
    command = ["mmdebstrap", "--quiet", "--variant=extract", f"--architectures={architecture}"]
    command += [f"--extract-hook={HOOK}", f"--include={','.join(PACKAGES[variant])}", SUITE, "-"]
    members: list[tuple[tarfile.TarInfo, bytes]] = []
    modules: dict[str, bytes] = {}
    info: dict[str, bytes] = {}
    with _output(command) as pipe, tarfile.open(fileobj=pipe, mode="r|") as tar:
        for member in tar:
            path = member.name = member.name.removeprefix("./").rstrip("/")
            if path in {"", "."} or member.isdev():
                continue
            file = tar.extractfile(member) if member.isreg() else None
            data = file.read() if file else b""
            if file and os.path.dirname(path) == INFO:
                info[os.path.basename(path)] = data
            elif not _left_out.match(path):
                members.append((member, data))
                if path.endswith(".py") and path.startswith("usr/lib/python3"):
                    modules[path] = compiled(path, data)
    # The order in folders differs between file systems; a hard link must come after its target.
    members.sort(key=lambda one: (one[0].islnk(), one[0].name))
    layer = Layer(date)
    for member, data in members:
        layer.add(member, data)
        if member.name in modules:
            layer.add_file(importlib.util.cache_from_source(member.name), modules[member.name])
    installed = packages(info, [member.name for member, _ in members if not member.isdir()])
    layer.add_file(STATUS, status(installed))
    for package in installed:
        layer.add_file(f"{INFO}/{package.name}.list", "".join(f"/{file}\n" for file in package.files).encode())
    return layer.finish()


@contextmanager
def _output(command: list[str]) -> Iterator[IO[bytes]]:
    """The output of mmdebstrap. Raises SystemExit if it fails, whatever happened to its output."""
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, process_group=0)
    except FileNotFoundError:
        sys.exit("image: mmdebstrap is missing. try: apt-get install mmdebstrap")
    assert process.stdout is not None
    try:
        try:
            yield process.stdout
        except tarfile.ReadError:
            if process.wait() == 0:
                raise
        # The archive ends before the output does.
        while process.stdout.read(1 << 16):
            pass
        if process.wait():
            sys.exit(f"image: mmdebstrap ended with {process.returncode}")
    finally:
        process.stdout.close()
        if process.poll() is None:  # interrupted, and the signal did not reach its process group
            os.killpg(process.pid, signal.SIGINT)
            process.wait()


def add_compiled(layer: Layer, path: str, source: bytes) -> None:
    """Adds the .pyc of a module."""
    layer.add_file(importlib.util.cache_from_source(path), compiled(path, source))


def compiled(path: str, source: bytes) -> bytes:
    """The .pyc of a module, of the kind that Python never checks against its source (PEP 552, unchecked hash).

    marshal writes a reference for an object that is used elsewhere, which depends on what this process has done before.
    So it first writes a form without references; what is read from that has references only to interned texts, always.
    """
    version = re.match(r"usr/lib/python(3\.\d+)/", path)
    if version and version[1] != f"{sys.version_info[0]}.{sys.version_info[1]}":
        sys.exit(f"image: {SUITE} has Python {version[1]}, this is {sys.version}. try: {SUITE}'s /usr/bin/python3")
    try:
        code = compile(source, sys.intern("/" + path), "exec", dont_inherit=True)
    except SyntaxError as error:
        sys.exit(f"image: /{path} does not compile: {error}")
    flags = (0b01).to_bytes(4, "little")  # hash-based, unchecked
    return importlib.util.MAGIC_NUMBER + flags + importlib.util.source_hash(source) + equal_bytes(code)


def equal_bytes(code: CodeType) -> bytes:
    """The code as written by marshal, independent of what this process did before."""
    return marshal.dumps(marshal.loads(marshal.dumps(code, 2)))
