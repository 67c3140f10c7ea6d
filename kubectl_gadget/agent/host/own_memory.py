"""The memory of this process: whether its cgroup, such as its pod's container, is near its limit, and what glibc keeps.

The kernel kills one process of the cgroup, or all of them, when the limit is reached. The trap: cached files count as
used, but are dropped first. The limit is unknown with cgroup version 1, and when only a parent cgroup has one.
"""

import ctypes
import math
import os

from kubectl_gadget.agent.host import procfs

_MOUNT = "/sys/fs/cgroup"
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""


class OwnMemory:
    """The memory of the cgroup (version 2) in this folder."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._limit = self._number("memory.max")

    def is_scarce(self) -> bool:
        """Whether more than three quarters of the limit are used. False if there is none."""
        most = 0.75 * self._limit
        return most < math.inf and self._number("memory.current") > most and self._used() > most

    def _used(self) -> float:
        counts = dict(line.split() for line in procfs.read(f"{self._folder}/memory.stat").splitlines())
        cached = sum(int(counts.get(kind, 0)) for kind in (b"active_file", b"inactive_file"))
        return self._number("memory.current") - cached

    def _number(self, name: str) -> float:
        text = procfs.read(f"{self._folder}/{name}").strip()
        return int(text) if text.isdigit() else math.inf  # "max", or no such file


def own_memory() -> OwnMemory:
    """Returns the memory of this process's cgroup. In a pod, the mount usually begins at the container's cgroup."""
    below = f"{_MOUNT}{procfs.cgroup(os.getpid())}"
    return OwnMemory(below if os.path.isdir(below) else _MOUNT)


def keep_freed_memory() -> None:
    """Makes malloc() reuse freed memory until give_back_freed_memory(): libbpf reads all of the kernel's types again
    for each object, twice 5 MB, and each new page from the kernel takes a microsecond. Does nothing where the C library
    has no mallopt()."""
    _set_thresholds(32 << 20, 64 << 20)


def give_back_freed_memory() -> None:
    """Returns memory to the kernel that was freed after programs were loaded. Takes a millisecond or two. Does nothing
    where the C library has no malloc_trim()."""
    _set_thresholds(4 << 20, 8 << 20)
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _set_thresholds(of_own_mapping: int, kept: int) -> None:
    """Sets the size from which an allocation gets its own mapping, and how much freed memory glibc keeps."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, of_own_mapping)
        set_option(_M_TRIM_THRESHOLD, kept)
