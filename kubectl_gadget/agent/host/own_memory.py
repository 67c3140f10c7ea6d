"""The memory of this process: whether its cgroup, such as its pod's container, is near its limit, and what is freed.

The kernel kills one process there when the limit is reached, or all of them. The trap: cached files count as used, but
are dropped first. Not known with cgroup version 1, and where only a cgroup above has a limit.
"""

import ctypes
import math
import os

from kubectl_gadget.agent.host import procfs

_MOUNT = "/sys/fs/cgroup"


class OwnMemory:
    """Reads files of the cgroup version 2 in this folder."""

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
    """That of this process. In a pod, the mount usually begins at the pod's own cgroup."""
    below = f"{_MOUNT}{procfs.cgroup(os.getpid())}"
    return OwnMemory(below if os.path.isdir(below) else _MOUNT)


def give_back_freed_memory() -> None:
    """Returns memory to the system that was freed after loading programs: libbpf reads all of the kernel's types, and
    glibc keeps those 20 MB. Takes a millisecond or two. Does nothing where the C library has no malloc_trim()."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
