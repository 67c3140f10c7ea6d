"""/tmp/perf-PID.map: the functions that a just-in-time compiler (Node.js, Java, .NET, Python, …) reports.

One line per function: start and length in hexadecimal digits, and the name. The trap: the path is inside the container,
which may be hostile: with links that lead out of it, pipes, file systems that never answer, or any number of functions.
So it is opened by host/foreign_files.py, which opens only regular files, and only the first lines are read.
"""

import os
import weakref
from bisect import bisect_right
from typing import BinaryIO

from kubectl_gadget.agent.host.foreign_files import open_inside
from kubectl_gadget.agent.symbols.elf_functions import Function

_MOST_BYTES = 64 << 20
_MOST_LINES, _MOST_LINE = 400_000, 4096
"""Lines that are read, which take some 100 MB of memory, and bytes of one."""
_MOST_IN_ALL = 256 << 20
"""Memory for the maps of all processes. A process may use half of what the others leave, so that none takes all."""
_PER_LINE = 200
"""Bytes of memory that a line takes beside its text."""
_maps: "weakref.WeakSet[PerfMap]" = weakref.WeakSet()


class PerfMap:
    """The map of one process; `refresh` reads the file again when it has changed."""

    def __init__(self, pid: int, own_pid: int) -> None:
        self._pid = pid
        self._path = f"tmp/perf-{own_pid}.map"
        self._seen: tuple[int, int] | None = None
        self._starts: list[int] = []
        self._functions: list[tuple[int, str]] = []
        self._bytes = 0
        _maps.add(self)

    def refresh(self) -> None:
        """Reads the file if it has changed. If it is gone or cannot be opened, the last content is kept."""
        try:
            fd = open_inside(self._pid, self._path)
        except OSError:
            return
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            if (seen := (status.st_size, status.st_mtime_ns)) == self._seen:
                return
            self._seen = seen
            self._parse(file)

    def find(self, address: int) -> Function | None:
        """Returns the function that was reported at this address."""
        place = bisect_right(self._starts, address) - 1
        if place < 0:
            return None
        length, name = self._functions[place]
        offset = address - self._starts[place]
        return Function(name, offset) if offset < length else None

    def _parse(self, file: BinaryIO) -> None:
        found: dict[int, tuple[int, str]] = {}
        others = sum(one._bytes for one in _maps if one is not self)
        room = max(0, (_MOST_IN_ALL - others) // 2)
        left = _MOST_BYTES
        self._bytes = 0
        for _ in range(_MOST_LINES):
            line = file.readline(min(left, _MOST_LINE))
            if not line:
                break
            left -= len(line)
            if self._bytes + len(line) + _PER_LINE > room:
                break
            self._bytes += len(line) + _PER_LINE
            parts = line.split(None, 2)
            try:
                # A later line replaces an earlier one.
                found[int(parts[0], 16)] = int(parts[1], 16), parts[2].rstrip(b"\r\n").decode(errors="replace")
            except (ValueError, IndexError):
                continue
        self._starts = sorted(found)
        self._functions = [found[start] for start in self._starts]
