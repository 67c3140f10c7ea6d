"""Gives BPF programs what they need to unwind stacks without frame pointers (bpf/include/gadget/unwind.h).

That is the section .eh_frame of each file whose code runs, with its index, and where these files are mapped in each
process. A program that samples a process that it does not know, or code in it, asks for it; the answer takes one turn
of the session. So only what runs is ever read. Sections are copied as they are; only an index is made where the file
has none. Note: the content is not trusted, but programs check all that they read.
"""

import errno
import struct
import time
from bisect import insort
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from contextlib import suppress

from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.maps import ARRAY, Batches, OpenMap, make_map
from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.elf import ElfFile, ElfSource, MemorySource
from kubectl_gadget.agent.host import procfs
from kubectl_gadget.agent.symbols.user_symbols import (
    Mapping,
    identity_of,
    mappings_of_text,
    open_mapped,
    own_vdso,
    start_of_stack,
)

# The sections of a file.

_EH_FRAME_HEADER, _LOAD, _EXECUTABLE = 0x6474E550, 1, 1
_HEADER = struct.Struct("<BBBBiI")
_USUAL = (1, 0x1B, 0x03, 0x3B)
"""Version 1; a 32-bit offset to .eh_frame, a 32-bit count, and pairs of 32-bit offsets from the header's start."""
_PAIR = struct.Struct("<ii")
_WORDS = struct.Struct("<II")
_MOST_BYTES = 24 << 20
"""Bytes of a section that are copied. Chromium has 20 MB."""
_MOST_ENTRIES = 1 << 20
_POINTERS = {0x0: "<Q", 0x2: "<H", 0x3: "<I", 0x4: "<Q", 0xA: "<h", 0xB: "<i", 0xC: "<q"}
_RELATIVE = 0x10
"""DW_EH_PE_pcrel"""


class UnwindSections:
    """What programs read of one file: `index` are pairs of offsets, of code from `base` and of its entry in `frames`
    minus `distance`. Both are empty if the file has none. `base` is an address as in the file's symbols."""

    def __init__(self, source: ElfSource) -> None:
        self.index = self.frames = b""
        self.base = self.distance = 0
        elf = ElfFile(source)
        self._code = [one for one in elf.segments if one.kind == _LOAD and one.flags & _EXECUTABLE]
        with suppress(struct.error):
            self._read(elf)

    @property
    def entries(self) -> int:
        return len(self.index) // _PAIR.size

    def load_address(self, mapping: Mapping) -> int | None:
        """Returns what has to be added to the file's addresses in this mapping; None if it maps no code of it."""
        for one in self._code:
            if one.offset & ~4095 <= mapping.offset < one.offset + one.size:
                return mapping.start - mapping.offset + one.offset - one.address
        return None

    def _read(self, elf: ElfFile) -> None:
        header = next((one for one in elf.segments if one.kind == _EH_FRAME_HEADER), None)
        section = next((one for one in elf.sections if elf.names.at(one.name) == b".eh_frame"), None)
        if header is not None:
            head = elf.source.read(header.offset, _HEADER.size)
            *kinds, start, count = _HEADER.unpack(head)
            if tuple(kinds) == _USUAL and 0 < count <= _MOST_ENTRIES:
                address = header.address + 4 + start
                size = section.size if section else self._rest(elf, address)
                offset = elf.offset_of(address)
                if offset is not None and 0 < size <= _MOST_BYTES:
                    self.frames = elf.source.read(offset, size)
                    index = elf.source.read(header.offset + _HEADER.size, count * _PAIR.size)
                    self.index = index[: len(index) // _PAIR.size * _PAIR.size]
                    self.base, self.distance = header.address, header.address - address
                    return
        if section is not None and section.size <= _MOST_BYTES:
            self.frames = elf.source.read(section.offset, section.size)
            self.base = section.address
            self.index = b"".join(_PAIR.pack(*pair) for pair in sorted(_entries(self.frames, section.address)))

    @staticmethod
    def _rest(elf: ElfFile, address: int) -> int:
        """Returns the bytes to the end of the segment."""
        ends = (one.address + one.size for one in elf.segments if one.kind == _LOAD and one.address <= address)
        return max(ends, default=0) - address


def _entries(frames: bytes, address: int) -> Iterable[tuple[int, int]]:
    """Yields, for each entry of .eh_frame, the offsets of its code, from the section's address, and of itself."""
    encodings: dict[int, int | None] = {}
    at = count = 0
    while at + 8 <= len(frames) and count < _MOST_ENTRIES:
        count += 1
        length, back = _WORDS.unpack_from(frames, at)
        if not length or length >= 0xFFFFFFF0:
            return
        if back:
            head = at + 4 - back
            if head not in encodings:
                encodings[head] = _encoding(frames, head)
            encoding = encodings[head]
            layout = _POINTERS.get(encoding & 0xF) if encoding is not None else None
            if encoding is not None and layout and encoding & 0x70 in (0, _RELATIVE):
                start: int = struct.unpack_from(layout, frames, at + 8)[0]
                start += at + 8 if encoding & _RELATIVE else -address
                start = (start + (1 << 31)) % (1 << 32) - (1 << 31)
                yield start, at
        at += 4 + length


def _encoding(frames: bytes, head: int) -> int | None:
    """Returns how the entries of a CIE encode addresses; None if that cannot be told."""
    if head < 0 or head + 17 > len(frames):
        return None
    end = frames.find(b"\0", head + 9, head + 17)
    letters = frames[head + 9 : end]
    if not letters.startswith(b"z"):
        return None if letters else 0
    at = end + 1
    for _ in range(4):  # units of code and data, the return address, and the length of what follows
        while frames[at] & 0x80:
            at += 1
        at += 1
    for letter in letters[1:]:
        if letter == ord("R"):
            return frames[at]
        if letter == ord("P"):
            at += struct.calcsize(_POINTERS.get(frames[at] & 0xF, "<Q"))
        at += letter in b"LP"
    return 0


# Memory that is shared out in ranges: pages for sections, and entries of the map of mappings.


class Ranges:
    """Free numbers from 0 to `count`."""

    def __init__(self, count: int) -> None:
        self._free = [(0, count)]
        self.used = 0

    def take(self, count: int) -> int | None:
        """Returns the start of a range of free numbers, which are not free any more; None if there is none."""
        for place, (start, end) in enumerate(self._free):
            if end - start >= count:
                self._free[place : place + 1] = [(start + count, end)] if end - start > count else []
                self.used += count
                return start
        return None

    def give_back(self, start: int, count: int) -> None:
        """Frees a range that take() has returned."""
        if not count:
            return
        self.used -= count
        insort(self._free, (start, start + count))
        joined: list[tuple[int, int]] = []
        for free in self._free:
            adjacent = bool(joined) and joined[-1][1] == free[0]
            joined.append((joined.pop()[0], free[1]) if adjacent else free)
        self._free = joined


_PAGE, _OVERLAP, _SHARD_PAGES = 4096, 64, 64
"""As in bpf/include/gadget/unwind.h."""


class _Memory:
    """The pages that programs read. More of them are made as they are needed."""

    def __init__(self, object: BpfObject) -> None:
        self._outer = object.required_map("gadget_unwind_memory")
        self._shards: dict[int, OpenMap] = {}
        self._first = object.required_map("gadget_unwind_first")
        self.pages = Ranges(self._outer.entries * _SHARD_PAGES)

    def write(self, page: int, data: bytes) -> None:
        """Writes from the start of a page on. Raises Failure."""
        for start in range(0, len(data), _PAGE):
            shard, entry = divmod(page + start // _PAGE, _SHARD_PAGES)
            piece = data[start : start + _PAGE + _OVERLAP].ljust(_PAGE + _OVERLAP, b"\0")
            (self._shard(shard) if shard else self._first).put(struct.pack("<I", entry), piece)

    def _shard(self, number: int) -> OpenMap:
        if number not in self._shards:
            shard = OpenMap(make_map(ARRAY, "unwind_shard", _PAGE + _OVERLAP, _SHARD_PAGES))
            self._outer.set(number, shard.fd)
            self._shards[number] = shard
        return self._shards[number]

    def close(self) -> None:
        while self._shards:
            self._shards.popitem()[1].close()


# The files and processes that programs know.

_MAPPING = struct.Struct("<QQQIIIIIi")
_PROCESS = struct.Struct("<QII")
_PID = struct.Struct("<I")
_VDSO = "[vdso]"
_MOST_MAPPINGS = 1024
"""Of one process."""
_MOST_NUMBER = 1 << 32
_SOON, _LATER = 0.1, 5.0
"""Seconds until a process's mappings are read again at its first and later requests."""
_CLEANED = 5.0
"""Seconds between two searches for processes that have ended."""
_MOST_SECONDS = 0.02
"""Of one turn of the session."""
_MOST_AT_START = 256
_ROOM = 64


class _Table:
    """Sections in the memory of programs."""

    def __init__(self, number: int, sections: UnwindSections, page: int, pages: int) -> None:
        self.number, self.sections, self.page, self.pages = number, sections, page, pages
        self.entries = sections.entries
        self.index = page * _PAGE
        self.frames = self.index + len(sections.index)
        self.frames_bytes = len(sections.frames)
        self.users = 0
        sections.index = sections.frames = b""  # the kernel has them now

    def mapped(self, mapping: Mapping) -> bytes:
        """Returns an entry of the map of mappings."""
        load = self.sections.load_address(mapping)
        if load is None or not self.entries:
            return _unknown(mapping)
        base = load + self.sections.base
        return _MAPPING.pack(
            *(mapping.start, mapping.end, base % (1 << 64), self.number, self.index, self.entries),
            *(self.frames, self.frames_bytes, self.sections.distance),
        )


def _unknown(mapping: Mapping) -> bytes:
    """Code that has no entries, and whose frame pointers are followed."""
    return _MAPPING.pack(mapping.start, mapping.end, 0, 0, 0, 0, 0, 0, 0)


class _Process:
    """What programs know of a process. `program` is the start of its stack (user_symbols.py)."""

    def __init__(self, program: int, now: float) -> None:
        self.program = program
        self.text = b""
        self.first = self.count = 0
        self.tables: list[_Table] = []
        self.delay, self.again = _SOON, now


class Unwinding:
    """Answers the requests of an object's programs. `warn` gets texts for the user."""

    def __init__(self, object: BpfObject, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._memory = _Memory(object)
        self._map = object.required_map("gadget_unwind_mappings")
        self._known = object.required_map("gadget_unwind_processes")
        self._wanted = Batches(object.required_map("gadget_unwind_wanted"), _ROOM)
        self._room = Ranges(self._map.entries)
        self._tables: OrderedDict[tuple[int, ...], _Table | None] = OrderedDict()
        self._processes: dict[int, _Process] = {}
        self._queue: deque[int] = deque()
        self._old: list[tuple[int, int]] = []
        """ranges of mappings that programs may still use"""
        self._next = 0
        self._clean_at = time.monotonic() + _CLEANED

    def expect(self, pids: Iterable[int]) -> None:
        """Reads these processes before they ask."""
        self._queue.extend(sorted(pids)[:_MOST_AT_START])

    def turn(self, now: float) -> None:
        """Answers requests, for a limited time. `now` is monotonic."""
        for start, count in self._old:
            self._room.give_back(start, count)
        self._old.clear()
        for keys, _ in self._wanted.take():
            self._queue.extend(_PID.unpack(key)[0] for key in keys)
        end = time.monotonic() + _MOST_SECONDS
        while self._queue and time.monotonic() < end:
            self._answer(self._queue.popleft(), now)
        if now >= self._clean_at:
            self._clean_at = now + _CLEANED
            for pid in [pid for pid, one in self._processes.items() if start_of_stack(pid) != one.program]:
                self._forget(pid)

    def close(self) -> None:
        self._memory.close()

    def _answer(self, pid: int, now: float) -> None:
        process = self._processes.get(pid)
        program = start_of_stack(pid)
        if process is not None and process.program != program:
            self._forget(pid)
            process = None
        if not program:
            return
        if process is None:
            process = self._processes[pid] = _Process(program, now)
        if now < process.again:
            return
        text = procfs.read(f"/proc/{pid}/maps")
        if text == process.text or start_of_stack(pid) != program:
            process.delay = min(2 * process.delay, _LATER)
        else:
            files = len(process.tables)
            with suppress(Failure):  # a map is full; frame pointers remain
                self._tell(pid, process, text)
            process.delay = _SOON if len(process.tables) > files else min(2 * process.delay, _LATER)
        process.again = now + process.delay

    def _tell(self, pid: int, process: _Process, text: bytes) -> None:
        """Tells programs of a process's mappings. Raises Failure."""
        process.text = text
        tables: list[_Table] = []
        entries = []
        opened: dict[tuple[int, int, str], _Table | None] = {}
        for mapping in mappings_of_text(text)[:_MOST_MAPPINGS]:
            key = mapping.device, mapping.inode, mapping.path
            if key not in opened:
                opened[key] = table = self._table_of(pid, mapping)
                if table is not None:
                    table.users += 1
                    tables.append(table)
            table = opened[key]
            entries.append(table.mapped(mapping) if table else _unknown(mapping))
        old = process.tables, process.first, process.count
        first = self._room.take(len(entries)) if entries else 0
        if first is None:
            self._release(tables)
            self._warn("no memory is left to unwind more processes; their callers are found by frame pointers only")
            return
        for place, entry in enumerate(entries):
            self._map.put(struct.pack("<I", first + place), entry)
        process.tables, process.first, process.count = tables, first, len(entries)
        self._known.put(_PID.pack(pid), _PROCESS.pack(process.program, first, len(entries)))
        self._release(old[0])
        self._old.append(old[1:])

    def _forget(self, pid: int) -> None:
        process = self._processes.pop(pid)
        self._known.remove(_PID.pack(pid))
        self._release(process.tables)
        self._old.append((process.first, process.count))

    @staticmethod
    def _release(tables: list[_Table]) -> None:
        for table in tables:
            table.users -= 1

    def _table_of(self, pid: int, mapping: Mapping) -> _Table | None:
        if mapping.path == _VDSO:
            return self._table((0,), MemorySource(own_vdso()))
        if not mapping.inode:
            return None
        source = open_mapped(pid, mapping)
        if source is None:
            return None
        try:
            return self._table(identity_of(source), source)
        finally:
            source.close()

    def _table(self, identity: tuple[int, ...], source: ElfSource) -> _Table | None:
        if identity in self._tables:
            self._tables.move_to_end(identity)
            return self._tables[identity]
        sections = UnwindSections(source)
        data = sections.index + sections.frames
        pages = -(-len(data) // _PAGE)
        page = self._take_pages(pages)
        table = None
        if page is None or self._next >= _MOST_NUMBER:
            self._warn("the memory for unwinding is full: stacks in further files follow frame pointers")
        else:
            self._next += 1
            table = _Table(self._next, sections, page, pages)
            try:
                self._memory.write(page, data)
            except Failure as failure:
                if failure.errno not in (errno.ENOMEM, errno.E2BIG):
                    raise
                self._memory.pages.give_back(page, pages)
                table = None
        self._tables[identity] = table
        return table

    def _take_pages(self, count: int) -> int | None:
        """Returns free pages, if need be those of files that no known process uses."""
        while (page := self._memory.pages.take(count)) is None:
            unused = next((key for key, one in self._tables.items() if one is None or not one.users), None)
            if unused is None:
                return None
            if gone := self._tables.pop(unused):
                self._memory.pages.give_back(gone.page, gone.pages)
        return page
