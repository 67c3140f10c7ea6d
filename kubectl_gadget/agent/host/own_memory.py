"""Whether the cgroup of this process, such as its pod's container, is near its memory limit.

The kernel kills one process there when the limit is reached, or all of them. The trap: cached files count as used, but
are dropped first. Not known with cgroup version 1, and where only a cgroup above has a limit.
"""

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
        counts = dict(line.split() for line in self._text("memory.stat").splitlines())
        cached = sum(int(counts.get(f"{kind}_file", 0)) for kind in ("active", "inactive"))
        return self._number("memory.current") - cached

    def _number(self, name: str) -> float:
        text = self._text(name).strip()
        return int(text) if text.isdecimal() else math.inf  # "max", or no such file

    def _text(self, name: str) -> str:
        try:
            with open(f"{self._folder}/{name}", encoding="ascii") as file:
                return file.read()
        except OSError:
            return ""


def own_memory() -> OwnMemory:
    """That of this process. In a pod, the mount usually begins at the pod's own cgroup."""
    below = f"{_MOUNT}{procfs.cgroup(os.getpid())}"
    return OwnMemory(below if os.path.isdir(below) else _MOUNT)
