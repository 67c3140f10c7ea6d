"""The file systems that the node's processes see. Each is accessed through /proc/PID/root of one of its processes, or
of another one when that has ended.

/proc is polled, since no event says when a process changes its root. The trap: a container may serve a file system
itself, and nothing may wait for it (foreign_files.py).
"""

import os
from collections.abc import Callable, Iterable
from typing import TypeVar

from kubectl_gadget.agent.host import foreign_files, procfs
from kubectl_gadget.agent.host.rechecks import Rechecks

RootId = tuple[int, int, int]
"""Mount namespace, device and inode of a process's root."""
Found = TypeVar("Found")


def through_one_of(pids: Iterable[int], look: Callable[[int], Found]) -> Found | None:
    """Returns what `look` returns for the first of these processes that has not ended; None when all have. Raises
    OSError, when `look` does so for a process that has not ended."""
    for pid in pids:
        try:
            return look(pid)
        except OSError:
            if procfs.link(f"/proc/{pid}/root"):
                raise
    return None


class FileSystems:
    """`wanted_cgroup` decides by a path in /proc/PID/cgroup whether a cgroup's processes matter."""

    def __init__(self, wanted_cgroup: Callable[[str], bool]) -> None:
        self._wanted_cgroup = wanted_cgroup
        self._rechecks = Rechecks[int]()
        self._roots: dict[int, RootId | None] = {}
        """of processes"""

    def look(self) -> dict[RootId, list[int]]:
        """Returns the processes of each file system. Those known longest come first: they are the least likely to
        end."""
        present = procfs.pids()
        for gone in self._roots.keys() - present:
            del self._roots[gone]
        for pid in self._rechecks.due(present):
            self._roots[pid] = self._root_of(pid)
        found: dict[RootId, list[int]] = {}
        for pid, root in self._roots.items():
            if root:
                found.setdefault(root, []).append(pid)
        return found

    def _root_of(self, pid: int) -> RootId | None:
        """Returns None when the process is gone, a kernel thread, or not wanted."""
        try:
            if not procfs.link(f"/proc/{pid}/exe") or not self._wanted_cgroup(procfs.cgroup(pid)):
                return None
            root = foreign_files.status_inside(pid, "/")
            return os.stat(f"/proc/{pid}/ns/mnt").st_ino, root.st_dev, root.st_ino
        except OSError:
            return None
