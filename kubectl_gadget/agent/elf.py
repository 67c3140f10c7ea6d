"""Reads parts of an ELF file: 64-bit and little-endian, which is all that the agent's machines run.

Files are read and not mapped: a container may truncate a file that is being read, and accessing a mapping of it would
then kill the agent. Note: every number in a container's file may be false, and a read may return less than was asked
for.
"""

import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from itertools import chain, islice
from typing import NamedTuple, Protocol

_HEADER = struct.Struct("<16xHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQI20x")
_SEGMENT = struct.Struct("<IIQQ8xQ16x")
_MAGIC = b"\x7fELF\x02\x01"
_LOAD, _EXECUTABLE = 1, 1
MOST_NAME_BYTES = 4096
"""The bytes that are read of a longer name."""


class ElfSource(Protocol):
    """The bytes of an ELF file."""

    def read(self, offset: int, size: int) -> bytes:
        """Returns bytes at an offset, fewer than `size` at the end."""
        ...


class FileSource:
    """An open file, which the object owns."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def read(self, offset: int, size: int) -> bytes:
        pieces = []
        while size > 0:
            try:
                piece = os.pread(self.fd, min(size, 1 << 24), offset)
            except (OSError, OverflowError):
                break
            if not piece:
                break
            pieces.append(piece)
            offset, size = offset + len(piece), size - len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Closes the file. Later reads return nothing."""
        os.close(self.fd)
        self.fd = -1


class MemorySource:
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]


class StringTable(NamedTuple):
    """A table of NUL-terminated strings."""

    source: ElfSource
    start: int
    size: int

    def at(self, offset: int) -> bytes:
        """Returns the string that begins at this offset; empty beyond the table's end."""
        if not 0 <= offset < self.size:
            return b""
        return self.source.read(self.start + offset, min(MOST_NAME_BYTES, self.size - offset)).partition(b"\0")[0]


class ElfSegment(NamedTuple):
    """An entry of the program headers."""

    kind: int
    flags: int
    offset: int
    address: int
    size: int
    """in the file"""


class Section(NamedTuple):
    """An entry of the section headers."""

    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int


class ElfFile:
    """The tables of a file; empty if it is malformed or of another kind."""

    def __init__(self, source: ElfSource) -> None:
        self.source = source
        self.is_elf = source.read(0, len(_MAGIC)) == _MAGIC
        self.entry = self._names = 0
        self.segments: list[ElfSegment] = []
        self.sections: list[Section] = []
        with suppress(struct.error, OverflowError):
            if self.is_elf:
                self._read_tables()

    def _read_tables(self) -> None:
        fields = _HEADER.unpack(self.source.read(0, _HEADER.size))
        self.entry, segments, sections = fields[3:6]
        segment_size, segment_count, section_size, section_count, self._names = fields[8:]
        self.segments = [ElfSegment(*each) for each in self._entries(_SEGMENT, segments, segment_size, segment_count)]
        self.sections = [Section(*each) for each in self._entries(_SECTION, sections, section_size, section_count)]

    def _entries(self, layout: struct.Struct, start: int, size: int, count: int) -> Iterator[tuple[int, ...]]:
        # Another size is false, and could make a table of 65,535 entries as large as 4 GB.
        return layout.iter_unpack(self.source.read(start, size * count)) if size == layout.size else iter(())

    def strings(self, section: int) -> StringTable:
        """Returns the strings in the section of this number; empty if the file lacks the section."""
        if section >= len(self.sections):
            return StringTable(self.source, 0, 0)
        return StringTable(self.source, self.sections[section].offset, self.sections[section].size)

    @property
    def names(self) -> StringTable:
        """The names of sections."""
        return self.strings(self._names)

    def address_of(self, offset: int) -> int | None:
        """Returns the address, as in the symbol table, of code at an offset in the file; None outside of code."""
        for one in self.segments:
            if one.kind == _LOAD and one.flags & _EXECUTABLE and one.offset <= offset < one.offset + one.size:
                return one.address + offset - one.offset
        return None

    def offset_of(self, address: int) -> int | None:
        """Returns the offset in the file of an address in its symbol table; None when the file does not have it."""
        for one in self.segments:
            if one.kind == _LOAD and one.address <= address < one.address + one.size:
                return address - one.address + one.offset
        return None


def open_file(opened: Callable[[], int]) -> FileSource | None:
    """Returns the file whose descriptor the function returns; None when it raises OSError, or when the file is not a
    regular one, so that reads may wait."""
    try:
        fd = opened()
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    return FileSource(fd)


# Identifies the contents of a program's file: by its build id, or by digests of the whole file. A malformed file has no
# build id, and only the first segments are searched.

_NOTE = struct.Struct("<III")
_PT_NOTE, _SHT_NOTE, _NT_GNU_BUILD_ID = 4, 7, 3
_MOST_NOTES = 1 << 16
"""Bytes of a segment of notes."""
_MOST_SEGMENTS = 16


def build_id(file: int) -> str:
    """Returns the build id in hex; "" when there is none."""
    return build_id_of(ElfFile(FileSource(file)))


def build_id_of(elf: ElfFile) -> str:
    """Returns the build id in hex; "" when there is none. Sections are searched too: segments of a file that has only
    symbols may point to what it lacks."""
    segments = islice(((one.offset, one.size) for one in elf.segments if one.kind == _PT_NOTE), _MOST_SEGMENTS)
    sections = islice(((one.offset, one.size) for one in elf.sections if one.kind == _SHT_NOTE), _MOST_SEGMENTS)
    notes = (elf.source.read(offset, min(size, _MOST_NOTES)) for offset, size in chain(segments, sections))
    return next(filter(None, map(_in_notes, notes)), "")


def _in_notes(data: bytes) -> str:
    at = 0
    while at + _NOTE.size <= len(data):
        name_bytes, bytes, kind = _NOTE.unpack_from(data, at)
        name = at + _NOTE.size
        start = name + (name_bytes + 3) // 4 * 4
        if kind == _NT_GNU_BUILD_ID and data[name : name + 4] == b"GNU\0":
            return data[start : start + bytes].hex()
        at = start + (bytes + 3) // 4 * 4
    return ""


def matches(file: int, digests: list[str]) -> bool:
    """True if one of `sha256:…`, `build-id:…`, … matches the file. Raises OSError."""
    import hashlib  # loads libcrypto, 4 MB that few sessions need

    wanted = {(kind, text) for kind, _, text in (digest.partition(":") for digest in digests)}
    for kind in {kind for kind, _ in wanted}:
        if kind == "build-id":
            found = build_id(file)
        else:
            os.lseek(file, 0, os.SEEK_SET)
            read = hashlib.new(kind)
            while data := os.read(file, 1 << 18):
                read.update(data)
            found = read.hexdigest()
        if (kind, found) in wanted:
            return True
    return False


def digest(data: bytes) -> str:
    """Returns the SHA-256 as hexadecimal digits. hashlib would load libcrypto, 4 MB that few agents need."""
    try:
        module = import_module("_sha2")  # of Python 3.12 and newer
    except ImportError:
        module = import_module("hashlib")
    found: str = module.sha256(data).hexdigest()
    return found
