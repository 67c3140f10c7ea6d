"""The file systems that the node's processes see. Each is reached through /proc/PID/root of one of its processes.

/proc is polled, since no event says when a process changes its root. The trap: a container may serve a file system
itself, and nothing may wait for it (foreign_files.py).
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from kubectl_gadget.agent.host import foreign_files, procfs

_AGAIN = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between two checks of one process; the last value is repeated."""

RootId = tuple[int, int, int]
"""Mount namespace, device and inode of the root."""


@dataclass
class _ProcessRoot:
    root: RootId | None = None
    looks: int = 0
    due: float = 0.0


class FileSystems:
    """`wanted_cgroup` decides by a path in /proc/PID/cgroup whether a cgroup's processes matter."""

    def __init__(self, wanted_cgroup: Callable[[str], bool]) -> None:
        self._wanted_cgroup = wanted_cgroup
        self._processes: dict[int, _ProcessRoot] = {}

    def look(self) -> dict[RootId, int]:
        """Returns one process of each file system known now."""
        now = time.monotonic()
        present = {int(name) for name in os.listdir("/proc") if name.isdigit()}
        for gone in self._processes.keys() - present:
            del self._processes[gone]
        roots: dict[RootId, int] = {}
        for pid in present:
            process = self._processes.setdefault(pid, _ProcessRoot())
            if process.due <= now:
                process.due = now + _AGAIN[min(process.looks, len(_AGAIN) - 1)]
                process.looks += 1
                process.root = self._root_of(pid)
            if process.root:
                roots.setdefault(process.root, pid)
        return roots

    def _root_of(self, pid: int) -> RootId | None:
        """Returns None when the process is gone, a kernel thread, or not wanted."""
        try:
            if not procfs.link(f"/proc/{pid}/exe") or not self._wanted_cgroup(procfs.cgroup(pid)):
                return None
            root = foreign_files.status_inside(pid, "/")
            return os.stat(f"/proc/{pid}/ns/mnt").st_ino, root.st_dev, root.st_ino
        except OSError:
            return None
