"""The agent's own files, beside its modules or in its payload; libbpf among them; and a copy of the payload
with compiled modules.

The trap: paths in a zip do not resolve "..", and a file in it has no path that other programs could open.
"""

import ctypes
import json
import marshal
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib._bootstrap_external import MAGIC_NUMBER
from typing import Any, NoReturn

from kubectl_gadget.agent.pod import presence
from kubectl_gadget.errors import AgentError

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
_loader: Any = __spec__.loader


def read(path: str) -> bytes:
    """Reads a file. `path` is relative to kubectl_gadget. Raises OSError."""
    data: bytes = _loader.get_data(f"{_ROOT}/{path}")
    return data


def payload() -> str | None:
    """Returns the path of the payload that the agent was imported from; None when the agent is installed."""
    return getattr(_loader, "archive", None)


# Finds libbpf: in the payload that contained the agent, else among the machine's own libraries, and for an agent of
# `--local` on a machine without it, in the payload that the client would send to a node.
#
# The payload's libraries are put into memory files and loaded in dependency order, so that each finds the ones it
# needs by name among those already loaded. The trap: where memory files may not be mapped as code (mandatory access
# control, vm.memfd_noexec), the pod's own folder, an emptyDir, is tried; /dev/shm is mounted noexec.

SONAME = "libbpf.so.1"
_USUAL = ("libz.so.1", "libzstd.so.1")
"""Most images have them: Python itself uses the first, and the functions that we need have not changed for years. The
payload's libzstd has only functions that fail, since we read no data compressed with it."""
_MFD_CLOEXEC, _MFD_EXEC = 1, 0x10
"""MFD_EXEC needs Linux 6.3; without it, vm.memfd_noexec decides."""


def libbpf() -> ctypes.CDLL:
    """Returns the library. Raises OSError when the machine has none, AgentError when the payload's cannot be loaded."""
    if payload() is None:
        try:
            return ctypes.CDLL(SONAME, use_errno=True)
        except OSError:
            if not _load_from_client():
                raise
            return ctypes.CDLL(SONAME, use_errno=True)
    why = _load(read)
    try:
        return ctypes.CDLL(SONAME, use_errno=True)
    except OSError:
        raise AgentError(*_explained(why)) from None


def _load_from_client() -> bool:
    """Loads the libraries from the payload in an installed client. Returns whether that succeeded."""
    import lzma
    from io import BytesIO
    from zipfile import ZipFile

    try:
        payload = b"".join(read(f"built/payload/{name}.xz") for name in ("common", os.uname().machine))
    except OSError:
        return False
    with ZipFile(BytesIO(lzma.decompress(payload))) as archive:
        return not _load(lambda path: archive.read(f"kubectl_gadget/{path}"))


def _load(read: Callable[[str], bytes]) -> list[str]:
    """Loads the payload's libraries. Returns the failures."""
    manifest = json.loads(read("built/libraries/manifest.json"))
    for library in manifest["libraries"]:
        name = library["soname"]
        if name in _USUAL and _loads(name) is None:
            continue
        data = read(f"built/libraries/{name}")
        failed = [_from_memory(name, data)]
        if failed[0] is not None and _may_not_be_mapped(failed[0]):
            failed.append(_from_folder(name, data))
        if failed[-1] is not None:
            return [text for text in failed if text]
    return []


def _loads(path: str) -> str | None:
    """Returns why the library cannot be loaded; None when it was loaded."""
    try:
        ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        return str(error)
    return None


def _from_memory(name: str, data: bytes) -> str | None:
    try:
        try:
            fd = os.memfd_create(name, _MFD_CLOEXEC | _MFD_EXEC)
        except OSError:  # an older kernel, or one that refuses executable memory files
            fd = os.memfd_create(name, _MFD_CLOEXEC)
    except OSError as error:
        return f"memfd_create: failed to map: {error}"
    # The file stays open, or another library could get its path, for which the loader would return this one.
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    return _loads(f"/proc/self/fd/{fd}")


def _from_folder(name: str, data: bytes) -> str | None:
    path = f"{presence.FOLDER}/{name}.{os.getpid()}"
    try:
        with open(path, "xb") as file:
            file.write(data)
        try:
            return _loads(path)
        finally:
            os.unlink(path)
    except OSError as error:
        return str(error)


def _may_not_be_mapped(why: str) -> bool:
    return "failed to map" in why or "cannot open" in why


def _explained(why: list[str]) -> tuple[str, str]:
    """Returns the error's text and a remedy."""
    text = "; ".join(why)
    if "GLIBC_" in text:
        return f"this image's C library is too old for our libbpf: {text}", "--image docker.io/library/python:3.13-slim"
    if any(map(_may_not_be_mapped, why)):
        what = f"libbpf cannot be mapped from memory or from {presence.FOLDER}: {text}"
        return what, "our own image, which has it: make image, then --image"
    return f"libbpf cannot be loaded: {text}", "--image docker.io/library/python:3.13-slim"


# A copy of the pod's payload with its modules compiled for this version of Python. The pod's main process makes it;
# otherwise each session would compile the modules that were not sent compiled for its Python.
#
# The trap: it does not have the payload's hash. So it is used only if no other user can have written it
# (unpacking.py), and it is made from the file that this process itself was imported from, whose hash was checked.

_HEAD = MAGIC_NUMBER + bytes(12)
"""The header of a compiled module without source: no flags, time or size."""
_IDLE = 19


def keep_compiled() -> NoReturn:
    """Makes the copy if it does not exist, and ends the process."""
    try:
        os.nice(_IDLE)
        kept = _kept()
        if kept and not os.path.exists(_path(kept)):
            compile_to_copy(kept)
    except OSError as error:
        sys.stderr.write(f"each session here compiles its modules: {error}\n")
        sys.stderr.flush()
    finally:
        os._exit(0)


def compile_to_copy(kept: str) -> None:
    """Writes the copy beside the payload `kept`. Raises OSError."""
    from zipfile import ZipFile, ZipInfo

    new = f"{_path(kept)}.{os.getpid()}"
    with suppress(FileNotFoundError):
        os.unlink(new)  # left by an earlier main process with the same PID
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(file, "wb") as written, ZipFile(kept) as source, ZipFile(written, "w") as copy:
        files = {info.filename: source.read(info) for info in source.infolist()}
        for name, data in files.items():
            if name.endswith(".py"):
                sent = files.get(f"{name}c", b"")  # compiled by the build's Python, which may have another version
                compiled = sent if sent.startswith(MAGIC_NUMBER) else _compiled(data, name)
                copy.writestr(ZipInfo(f"{name}c"), compiled)
            elif not name.endswith(".pyc"):
                copy.writestr(ZipInfo(name), data)
    os.replace(new, _path(kept))


def _compiled(data: bytes, name: str) -> bytes:
    return _HEAD + marshal.dumps(compile(data, name, "exec", dont_inherit=True))


def _kept() -> str:
    """Returns the pod's file that this process was imported from, with the payload's hash in its name; "" if there is
    no such file, or if this process was imported from the copy."""
    with suppress(OSError):
        path = os.readlink(payload() or "")
        return path if os.path.isfile(path) and not path.endswith(MAGIC_NUMBER.hex()) else ""
    return ""


def _path(kept: str) -> str:
    """Returns the copy's path, as in unpacking.py."""
    return f"{kept}.{MAGIC_NUMBER.hex()}"
