"""The agent's own files, beside its modules or in its payload; libbpf among them; and a copy of the payload
with compiled modules.

The trap: paths in a zip do not resolve "..", and a file in it has no path that other programs could open.
"""

import ctypes
import marshal
import os
import sys
from contextlib import suppress
from importlib.util import MAGIC_NUMBER
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


# Finds libbpf with libelf and zlib: one object for each C library (gadgets/pack_libbpf.py), beside the modules or in
# the payload. A machine's own libbpf is used where there is none: in a source tree that was not built.
#
# The payload's object is put into a memory file and loaded from there. Where memory files may not be mapped as code
# (mandatory access control, vm.memfd_noexec), the pod's own folder, an emptyDir, is tried; /dev/shm is mounted noexec.

_SYSTEMS = "libbpf.so.1"
_OTHER = "--image docker.io/library/python:3.13-slim"
_MFD_CLOEXEC, _MFD_EXEC = 1, 0x10
"""MFD_EXEC needs Linux 6.3; without it, vm.memfd_noexec decides."""


def libbpf() -> ctypes.CDLL:
    """Returns the library. Raises OSError when there is none for this machine, AgentError when the payload's cannot be
    loaded."""
    why: list[str] = []
    for libc in _libcs():
        name = f"built/libraries/{os.uname().machine}/libbpf-{libc}.so.1"
        if payload() is None:
            found = _load(f"{_ROOT}/{name}", why)
        else:
            found = _from_payload(os.path.basename(name), read(name), why)
        if found:
            return found
    if payload() is None:
        return ctypes.CDLL(_SYSTEMS, use_errno=True)
    raise AgentError(*_explained(why))


def _libcs() -> tuple[str, ...]:
    """The C libraries whose object may work here, the likely one first."""
    try:
        glibc = os.confstr("CS_GNU_LIBC_VERSION")
    except (OSError, ValueError):  # unknown to musl
        glibc = None
    return ("glibc", "musl") if glibc else ("musl", "glibc")


def _load(path: str, why: list[str]) -> "ctypes.CDLL | None":
    """Loads a library; if that fails, adds the reason to `why`."""
    try:
        return ctypes.CDLL(path, use_errno=True)
    except OSError as error:
        why.append(str(error))
    return None


def _from_payload(name: str, data: bytes, why: list[str]) -> "ctypes.CDLL | None":
    found = _from_memory(name, data, why)
    if found is None and _may_not_be_mapped(why[-1]):
        return _from_folder(name, data, why)
    return found


def _from_memory(name: str, data: bytes, why: list[str]) -> "ctypes.CDLL | None":
    try:
        try:
            fd = os.memfd_create(name, _MFD_CLOEXEC | _MFD_EXEC)
        except OSError:  # an older kernel, or one that refuses executable memory files
            fd = os.memfd_create(name, _MFD_CLOEXEC)
    except OSError as error:
        why.append(f"memfd_create: failed to map: {error}")
        return None
    # The file stays open, or another library could get its path, for which the loader would return this one.
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    return _load(f"/proc/self/fd/{fd}", why)


def _from_folder(name: str, data: bytes, why: list[str]) -> "ctypes.CDLL | None":
    path = f"{presence.FOLDER}/{name}.{os.getpid()}"
    try:
        with open(path, "xb") as file:
            file.write(data)
        try:
            return _load(path, why)
        finally:
            os.unlink(path)
    except OSError as error:
        why.append(str(error))
    return None


def _may_not_be_mapped(why: str) -> bool:
    """True if the loader's error, of glibc or musl, is about the file and not about what is in it."""
    return any(text in why for text in ("failed to map", "cannot open", "Error loading shared library /"))


def _explained(why: list[str]) -> tuple[str, str]:
    """Returns the error's text and a remedy."""
    text = "; ".join(why)
    if "GLIBC_" in text:
        return f"this image's C library is too old, older than glibc 2.28: {text}", _OTHER
    if any(map(_may_not_be_mapped, why)):
        what = f"libbpf cannot be mapped from memory or from {presence.FOLDER}: {text}"
        return what, "our own image, which has it: make image, then --image"
    return f"libbpf cannot be loaded: {text}", _OTHER


# A copy of the pod's payload with its modules compiled for this version of Python. The pod's main process makes it;
# otherwise each session would compile the modules that were not sent compiled for its Python.
#
# It does not have the payload's hash. So it is used only if no other user can have written it (unpacking.py), and it is
# made from the file that this process itself was imported from, whose hash was checked.

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
