"""The file systems that the node's processes see. Each is reached through /proc/PID/root of one of its processes.

/proc is polled, since no event says when a process changes its root. The trap: a container may serve a file system
itself, and nothing may wait for it (foreign_files.py).
"""

import os
from collections.abc import Callable

from kubectl_gadget.agent.host import foreign_files, procfs
from kubectl_gadget.agent.host.rechecks import Rechecks

RootId = tuple[int, int, int]
"""Mount namespace, device and inode of the root."""


class FileSystems:
    """`wanted_cgroup` decides by a path in /proc/PID/cgroup whether a cgroup's processes matter."""

    def __init__(self, wanted_cgroup: Callable[[str], bool]) -> None:
        self._wanted_cgroup = wanted_cgroup
        self._rechecks = Rechecks[int]()
        self._roots: dict[int, RootId | None] = {}
        """of processes"""

    def look(self) -> dict[RootId, int]:
        """Returns one process of each file system known now: the one known longest, which lasts most likely."""
        present = procfs.pids()
        for gone in self._roots.keys() - present:
            del self._roots[gone]
        for pid in self._rechecks.due(present):
            self._roots[pid] = self._root_of(pid)
        return {root: pid for pid, root in reversed(self._roots.items()) if root}

    def _root_of(self, pid: int) -> RootId | None:
        """Returns None when the process is gone, a kernel thread, or not wanted."""
        try:
            if not procfs.link(f"/proc/{pid}/exe") or not self._wanted_cgroup(procfs.cgroup(pid)):
                return None
            root = foreign_files.status_inside(pid, "/")
            return os.stat(f"/proc/{pid}/ns/mnt").st_ino, root.st_dev, root.st_ino
        except OSError:
            return None
