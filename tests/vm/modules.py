"""Loads modules of the virtual machine's kernel with their dependencies: there is no modprobe in the machine.

The modules are next to the kernel's image (machine.py). On this machine itself there is nothing to load, and nothing
happens.
"""

import ctypes
import errno
import lzma
import os
import platform
import re
from pathlib import Path

from tests.vm.machine import CACHE

_FINIT_MODULE = 313
"""on x86-64, the virtual machine's architecture"""
_COMPRESSED = 4
_LIBC = ctypes.CDLL(None, use_errno=True)


def load(*names: str) -> None:
    """Loads these modules, unless this kernel has none. Raises OSError if the kernel rejects one."""
    folder = CACHE / "root" / "usr" / "lib" / "modules" / platform.release()
    files = {path.name.partition(".")[0].replace("-", "_"): path for path in folder.rglob("*.ko.xz")}
    for name in names:
        _load(name, files)


def _load(name: str, files: dict[str, Path]) -> None:
    path = files.get(name)
    if path is None:
        return  # built in, or no such kernel
    needed = re.search(rb"\0depends=([^\0]*)\0", lzma.decompress(path.read_bytes()))
    for other in filter(None, needed[1].decode().split(",") if needed else ()):
        _load(other.replace("-", "_"), files)
    with path.open("rb") as file:
        refused = _LIBC.syscall(_FINIT_MODULE, file.fileno(), b"", _COMPRESSED)
    if refused and ctypes.get_errno() != errno.EEXIST:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
