"""The subset of the kernel's types for each object (subset.py), kept for later sessions until the machine is rebooted.

The trap: a file decides where programs read in the kernel's memory, so it is used only if no other user can have
written it; and modules that are loaded later may have a type that the kernel lacks.
"""

import os
import struct
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

from kubectl_gadget.agent.elf import digest
from kubectl_gadget.agent.host import procfs, this_node

if TYPE_CHECKING:
    from kubectl_gadget.agent.kernel_types.btf_records import BtfRecords

_HERE = "/run/kubectl-gadget"
"""Outside of pods. Our pods name their own folder, which may be missing."""
_FOLDER = os.environ.get("KUBECTL_GADGET_RUN", _HERE)
_KERNEL = "/sys/kernel/btf"
"""Has a file for the kernel, and one for each module that has BTF."""
_MOST = 1000
"""Files that are kept, of some 40 KB each, in memory. Each new object that a client sends adds one."""


def open_subset(elf: bytes, folder: str = _FOLDER) -> int | None:
    """Returns a file descriptor of BTF with which this object is relocated as with the kernel's; None when the kernel's
    has to be used."""
    # Another one with each boot, and when modules are loaded.
    kernel = "/".join((this_node.boot_id(), *procfs.listed(_KERNEL))).encode()
    path = f"{folder}/types.{digest(elf + kernel)}"
    if folder == _HERE:
        with suppress(OSError):
            os.mkdir(folder, 0o700)
    try:
        fd = _opened(path)
    except FileNotFoundError:
        fd = _made(path, elf)
    except OSError:
        fd = None
    if fd is None or os.fstat(fd).st_size:
        return fd
    os.close(fd)
    return None


def forget_kernel() -> None:
    """Frees the kernel's types, 6 MB, which are kept when a subset is made, for the next one."""
    _kernel.cache_clear()


def _opened(path: str) -> int | None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    status = os.fstat(fd)
    if status.st_uid == os.geteuid() and not status.st_mode & 0o022:
        return fd
    os.close(fd)
    return None


def _made(path: str, elf: bytes) -> int | None:
    """Makes the file; it is empty when the object needs all types."""
    new = f"{path}.{os.getpid()}"
    try:
        if len(os.listdir(os.path.dirname(path))) >= _MOST:
            return None
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:  # the folder is missing, or we may not write to it
        return None
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(_subset(elf))
        os.replace(new, path)
    except OSError:
        os.close(fd)
        with suppress(OSError):
            os.unlink(new)
        return None
    return fd


def _subset(elf: bytes) -> bytes:
    from kubectl_gadget.agent.kernel_types.subset import (  # not needed in most sessions
        NoSubsetError,
        read_types,
        subset,
    )

    modules = (procfs.read(f"{_KERNEL}/{name}") for name in procfs.listed(_KERNEL) if name != "vmlinux")
    with suppress(NoSubsetError, struct.error, ValueError, OverflowError, LookupError):
        return subset(_kernel(), read_types(elf), modules)
    return b""


@cache
def _kernel() -> "BtfRecords":
    from kubectl_gadget.agent.kernel_types.btf_records import BtfRecords

    return BtfRecords(procfs.read(f"{_KERNEL}/vmlinux"))
