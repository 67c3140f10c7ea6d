"""The executable mappings of a process: to which file, and to which offset in it, an address belongs.

Linux 6.11 answers for one address (PROCMAP_QUERY), in 2 µs; on older kernels, the text of /proc/PID/maps is parsed. In
both cases the mappings are listed once, so that they are known when the process has ended. The trap: a process may run
another program at any time. An open maps file belongs to the memory of one program; which one is checked after opening.
"""

import ctypes
import errno
import fcntl
import os
import re
import struct
from bisect import bisect_left, bisect_right
from collections import deque
from typing import NamedTuple

from kubectl_gadget.agent.host import procfs

_MAPPING = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) ..x. ([0-9a-f]+) ([0-9a-f:]+) ([0-9]+) *(.*)", re.MULTILINE)
_QUERY = struct.Struct("<9Q4I2Q")
"""struct procmap_query (linux/fs.h): size, flags, address; start, end, flags, page size, offset, inode; device's major
and minor number, sizes of name and build id; their addresses"""
_PROCMAP_QUERY = 0xC0686611
_EXECUTABLE, _OR_NEXT = 4, 16
MOST_LISTED = 64
"""Mappings that are listed before addresses in them are looked up."""
MOST_KNOWN = 4096
MOST_OPEN = 128
_START_STACK = 25
"""Index in /proc/PID/stat, counted after the name: the start of the initial stack."""
_MOST_NAME = 4096


class Mapping(NamedTuple):
    """A range of addresses; `path` is as in /proc/PID/maps."""

    start: int
    end: int
    offset: int
    device: int
    inode: int
    path: str
    is_code: bool = True


class OpenMaps:
    """The open maps files of all processes; the oldest is closed when there are too many."""

    def __init__(self, by_text: bool = False) -> None:
        self.by_text = by_text
        """whether this kernel only has the text"""
        self._opened: deque[ProcessMappings] = deque()
        self._name = ctypes.create_string_buffer(_MOST_NAME)

    def add(self, process: "ProcessMappings") -> None:
        self._opened.append(process)
        if len(self._opened) > MOST_OPEN:
            self._opened.popleft().close()

    def close(self) -> None:
        while self._opened:
            self._opened.popleft().close()

    def ask(self, file: int, address: int, flags: int) -> Mapping | None:
        """Returns the mapping at an address, or None. Raises OSError, with ESRCH when the process has ended."""
        place = ctypes.addressof(self._name)
        query = bytearray(_QUERY.pack(_QUERY.size, flags, address, 0, 0, 0, 0, 0, 0, 0, 0, _MOST_NAME, 0, place, 0))
        try:
            fcntl.ioctl(file, _PROCMAP_QUERY, query, True)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        _, _, _, start, end, bits, _, offset, inode, major, minor, length, *_ = _QUERY.unpack(query)
        if not bits & _EXECUTABLE:
            return Mapping(start, end, 0, 0, 0, "", is_code=False)
        path = os.fsdecode(ctypes.string_at(place, length - 1)) if length else ""
        return Mapping(start, end, offset, os.makedev(major, minor), inode, path)


class ProcessMappings:
    """The mappings of one program of a process; `program` is the start of its stack, which identifies it."""

    def __init__(self, pid: int, program: int, opened: OpenMaps) -> None:
        self.pid, self._program, self._opened = pid, program, opened
        self._file = -1
        self._by_text = opened.by_text
        self._is_known = False
        self._starts: list[int] = []
        self._mappings: list[Mapping] = []
        self._checked: list[float] = []
        """for each mapping, when it was looked up"""
        self._since = 0.0
        self._read_at = self._failed_at = -1.0
        self._text = 0
        """hash of the text when it was last parsed"""

    def is_known(self, now: float) -> bool:
        """True if the mappings could be read."""
        return self._is_known or (self._refresh(0, now) and self._is_known)

    def renew(self, now: float) -> None:
        """Makes later lookups read the mappings again."""
        self._since = now

    def find(self, address: int, now: float) -> Mapping | None:
        """Returns the mapping of this address; the last known one when the process has ended."""
        place = bisect_right(self._starts, address) - 1
        found: Mapping | None
        if place >= 0 and address < (found := self._mappings[place]).end:
            if self._checked[place] < self._since and self._refresh(address, now):
                found = self._at(address)
        elif self._refresh(address, now):
            found = self._at(address)
        else:
            return None
        return found

    def _at(self, address: int) -> Mapping | None:
        place = bisect_right(self._starts, address) - 1
        return self._mappings[place] if place >= 0 and address < self._mappings[place].end else None

    def close(self) -> None:
        """Closes the maps file. It is opened again when it is needed."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _refresh(self, address: int, now: float) -> bool:
        """Looks up an address. Returns False when nothing can be read any more."""
        if now == self._failed_at:
            return False
        try:
            if not self._by_text:
                self._ask(address, now)
                return True
        except OSError as error:
            self.close()
            if error.errno == errno.ESRCH:
                self._failed_at = now
                return False
            # ENOTTY: an older kernel. Other errors concern only this process: a path may be too long.
            self._by_text = True
            self._opened.by_text |= error.errno == errno.ENOTTY
        return self._read_text(now)

    def _ask(self, address: int, now: float) -> None:
        """Looks up an address by PROCMAP_QUERY. Raises OSError, with ESRCH when the program has ended."""
        if self._file < 0:
            self._open()
        if not self._is_known:
            self._is_known = True
            following: Mapping | None = Mapping(0, 0, 0, 0, 0, "")
            while following and len(self._starts) < MOST_LISTED:
                following = self._opened.ask(self._file, following.end, _EXECUTABLE | _OR_NEXT)
                if following:
                    self._replace(following.start, following.end, following, now)
        mapping = self._opened.ask(self._file, address, 0)
        if mapping:
            self._replace(mapping.start, mapping.end, mapping, now)
        else:
            self._replace(address, address + 1, None, now)

    def _open(self) -> None:
        try:
            self._file = os.open(f"/proc/{self.pid}/maps", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            raise ProcessLookupError(errno.ESRCH, "it has ended") from None
        if start_of_stack(self.pid) != self._program:
            raise ProcessLookupError(errno.ESRCH, "it runs another program")
        self._opened.add(self)

    def _replace(self, start: int, end: int, mapping: Mapping | None, now: float) -> None:
        """Replaces all mappings in this range."""
        low, high = bisect_right(self._starts, start), bisect_left(self._starts, end)
        if low and self._mappings[low - 1].end > start:
            low -= 1
        if mapping is None:
            if low == high:
                return
        elif len(self._starts) >= MOST_KNOWN:
            low, high = 0, len(self._starts)
        new = [] if mapping is None else [mapping]
        self._mappings[low:high] = new
        self._starts[low:high] = [start] * len(new)
        self._checked[low:high] = [now] * len(new)

    def _read_text(self, now: float) -> bool:
        if now == self._read_at:
            return True
        self._read_at = now
        text = procfs.read(f"/proc/{self.pid}/maps")
        if not text or start_of_stack(self.pid) != self._program:
            return False
        self._is_known = True
        if hash(text) != self._text:
            self._text = hash(text)
            self._mappings = [_of_line(*line) for line in _MAPPING.findall(text)]
            self._starts = [mapping.start for mapping in self._mappings]
        self._checked = [now] * len(self._starts)
        return True


def _of_line(start: bytes, end: bytes, offset: bytes, device: bytes, inode: bytes, path: bytes) -> Mapping:
    major, _, minor = device.partition(b":")
    number = os.makedev(int(major, 16), int(minor, 16))
    return Mapping(int(start, 16), int(end, 16), int(offset, 16), number, int(inode), os.fsdecode(path))


def start_of_stack(pid: int) -> int:
    """Returns the start of the stack of the process's program; 0 when it is gone or may not be accessed."""
    try:
        with open(f"/proc/{pid}/stat", "rb", 0) as file:
            # The command name, in parentheses, may contain any characters.
            return int(file.read().rpartition(b")")[2].split(None, _START_STACK + 1)[_START_STACK])
    except (OSError, ValueError, IndexError):
        return 0
