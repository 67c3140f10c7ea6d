"""Which files the node's processes have mapped as executable, among the files that a gadget's uprobes attach to.

/proc is polled, since no event says when a process maps a library: new processes often, old ones rarely. The trap: a
path in /proc/PID/maps is relative to the process's own root, and another file may take its place at any time.
"""

import errno
import os
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from kubectl_gadget.agent.host import procfs
from kubectl_gadget.agent.host.foreign_files import Rechecks, open_inside, status_inside

_MOST_NAMES = 1000
_MAPPING = re.compile(rb"^[0-9a-f]+-[0-9a-f]+ ..x. [0-9a-f]+ [0-9a-f:]+ ([0-9]+) +(/.*)\n", re.MULTILINE)
_DELETED = b" (deleted)"


class MappedFile(NamedTuple):
    """One file, by its identity; `path` is as the process sees it."""

    device: int
    inode: int
    pid: int
    path: str

    def open(self) -> int:
        """Opens the file for reading. Raises OSError, with ESTALE when another file has taken its place."""
        file = open_inside(self.pid, self.path)
        status = os.fstat(file)
        if (status.st_dev, status.st_ino) != (self.device, self.inode):
            os.close(file)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), self.path)
        return file


class MappedFiles:
    """`wanted_cgroup` selects processes by the path in /proc/PID/cgroup, `wanted_name` files by name."""

    def __init__(self, wanted_cgroup: Callable[[str], bool], wanted_name: Callable[[str], bool]) -> None:
        self._wanted_cgroup = wanted_cgroup
        self._wanted_name = wanted_name
        self._rechecks = Rechecks[int]()
        self._mapped_by: dict[int, list[MappedFile]] = {}
        self._others: set[str] = set()
        """names of libraries and paths of programs that are not wanted"""

    def nearest_names(self, name: str) -> str:
        """Returns similar names among the files that the selected processes have mapped; "" when there are none."""
        from difflib import get_close_matches

        # A library is compared by its name without version, a program by its path.
        known = {other if "/" in name else other.partition(".so")[0] for other in self._others}
        return " or ".join(get_close_matches(name, known, 2, 0.6))

    def look(self) -> dict[tuple[int, int], MappedFile]:
        """Returns the wanted files that are mapped now, by device and inode."""
        present = procfs.pids()
        for gone in self._mapped_by.keys() - present:
            del self._mapped_by[gone]
        for pid in self._rechecks.due(present):
            self._mapped_by[pid] = list(self._mapped(pid)) if self._wanted_cgroup(procfs.cgroup(pid)) else []
        return {(file.device, file.inode): file for files in self._mapped_by.values() for file in files}

    def _mapped(self, pid: int) -> Iterator[MappedFile]:
        text = procfs.read(f"/proc/{pid}/maps")
        program = procfs.link(f"/proc/{pid}/exe")
        for inode, raw in set(_MAPPING.findall(text)):
            if raw.endswith(_DELETED):
                continue
            path = os.fsdecode(raw)
            name = path.rpartition("/")[2]
            if not self._wanted_name(name):
                if len(self._others) < _MOST_NAMES:
                    self._others.add(path if path == program else name)
                if path != program:
                    continue
            try:
                status = status_inside(pid, path)
            except OSError:
                continue
            if status.st_ino == int(inode):
                yield MappedFile(status.st_dev, status.st_ino, pid, path)
