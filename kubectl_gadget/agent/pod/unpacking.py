"""The head of a payload: checks what the image provides, and makes the payload's modules importable.

bootstrap.py runs its text with `payload`, the whole unpacked payload; `kept`, the file from which later processes read
it; and `place`, which is `kept` if it was read from there, or "". The payload is written to `kept` if the pod allows
it, otherwise to a memory file. If the pod's main process has made a copy with compiled modules (own_files.py), that is
used. Modules are read from the file as they are imported, so it must stay available; /proc/self/fd refers to it even
after it was replaced.
"""

import os
import sys
from importlib.util import MAGIC_NUMBER

OTHER = "try: --image docker.io/library/python:3.13-slim"
payload: bytes = globals()["payload"]
place: str = globals()["place"]
kept: str = globals()["kept"]


def check() -> None:
    try:
        import ctypes  # noqa: F401
        import zlib  # noqa: F401
    except ImportError as error:
        sys.exit(f"this image's Python is incomplete: {error}. {OTHER}")


def stored() -> str:
    """Returns the file that contains the payload; "" when it cannot be written."""
    if place == kept:
        return place
    new = f"{kept}.{os.getpid()}"
    try:
        with open(new, "xb") as written:
            written.write(payload)
        os.replace(new, kept)
    except OSError:
        return ""
    return kept


def compiled(path: str) -> int:
    """Opens the copy with compiled modules. Returns -1 if there is none, or if another user may have written it: its
    hash is unknown."""
    try:
        fd = os.open(f"{path}.{MAGIC_NUMBER.hex()}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return -1
    status = os.fstat(fd)
    if status.st_uid == os.geteuid() and not status.st_mode & 0o022:
        return fd
    os.close(fd)
    return -1


def importable() -> str:
    """Returns the entry for sys.path."""
    if path := stored():
        fd = compiled(path)
        return f"/proc/self/fd/{fd if fd >= 0 else os.open(path, os.O_RDONLY | os.O_CLOEXEC)}"
    try:
        fd = os.memfd_create("kubectl-gadget")
    except OSError as error:
        sys.exit(f"the agent cannot be unpacked: no memfd ({error}), and {kept} is not writable. {OTHER}")
    with open(fd, "wb", closefd=False) as memory:
        memory.write(payload)
    return f"/proc/self/fd/{fd}"


check()
sys.path.insert(0, importable())
del globals()["payload"]  # more than two megabytes
