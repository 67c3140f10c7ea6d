"""Finds libbpf: in the payload that contained the agent, else among the machine's own libraries, and for an agent of
`--local` on a machine without it, in the payload that the client would send to a node.

The payload's libraries are put into memory files and loaded in dependency order, so that each finds the ones it needs
by name among those already loaded. The trap: where memory files may not be mapped as code (mandatory access control,
vm.memfd_noexec), the pod's own folder, an emptyDir, is tried; /dev/shm is mounted noexec.
"""

import ctypes
import json
import os
from collections.abc import Callable

from kubectl_gadget.agent.payload import own_files
from kubectl_gadget.agent.pod import presence
from kubectl_gadget.errors import AgentError

SONAME = "libbpf.so.1"
_USUAL = ("libz.so.1", "libzstd.so.1")
"""Most images have them: Python itself uses the first, and the functions that we need have not changed for years. The
payload's libzstd has only functions that fail, since we read no data compressed with it."""
_MFD_CLOEXEC, _MFD_EXEC = 1, 0x10
"""MFD_EXEC needs Linux 6.3; without it, vm.memfd_noexec decides."""


def libbpf() -> ctypes.CDLL:
    """Returns the library. Raises OSError when the machine has none, AgentError when the payload's cannot be loaded."""
    if own_files.payload() is None:
        try:
            return ctypes.CDLL(SONAME, use_errno=True)
        except OSError:
            if not _load_from_client():
                raise
            return ctypes.CDLL(SONAME, use_errno=True)
    why = _load(own_files.read)
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
        payload = b"".join(own_files.read(f"built/payload/{name}.xz") for name in ("common", os.uname().machine))
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
