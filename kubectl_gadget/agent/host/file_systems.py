"""The file systems that the node's processes see. Each is reached through /proc/PID/root of one of its processes.

/proc is polled, since no event says when a process changes its root. The trap: a path with symbolic links has to be
resolved inside such a root, or an absolute link leads out of it, into our own.
"""

import ctypes
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from kubectl_gadget.agent.host import procfs

_AGAIN = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between two checks of one process; the last value is repeated."""
_OPENAT2 = 437
"""The same on all architectures. Linux 5.6."""
_OPEN_HOW = struct.Struct("<QQQ")
_RESOLVE_IN_ROOT = 0x10
_libc = ctypes.CDLL(None, use_errno=True)

RootId = tuple[int, int, int]
"""Mount namespace, device and inode of the root."""


_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


def open_inside(root: str, path: str, flags: int = _READ) -> int:
    """Opens a file below that root for reading. Raises OSError."""
    folder = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = _OPEN_HOW.pack(flags, 0, _RESOLVE_IN_ROOT)
        file = int(_libc.syscall(_OPENAT2, folder, os.fsencode(path), how, len(how)))
        if file < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
        return file
    finally:
        os.close(folder)


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

    def look(self) -> dict[RootId, str]:
        """Returns `/proc/PID/root` of one process of each file system known now."""
        now = time.monotonic()
        present = {int(name) for name in os.listdir("/proc") if name.isdigit()}
        for gone in self._processes.keys() - present:
            del self._processes[gone]
        roots: dict[RootId, str] = {}
        for pid in present:
            process = self._processes.setdefault(pid, _ProcessRoot())
            if process.due <= now:
                process.due = now + _AGAIN[min(process.looks, len(_AGAIN) - 1)]
                process.looks += 1
                process.root = self._root_of(pid)
            if process.root:
                roots.setdefault(process.root, f"/proc/{pid}/root")
        return roots

    def _root_of(self, pid: int) -> RootId | None:
        """Returns None when the process is gone, a kernel thread, or not wanted."""
        try:
            if not procfs.link(f"/proc/{pid}/exe") or not self._wanted_cgroup(procfs.cgroup(pid)):
                return None
            root = os.stat(f"/proc/{pid}/root")
            return os.stat(f"/proc/{pid}/ns/mnt").st_ino, root.st_dev, root.st_ino
        except OSError:
            return None
