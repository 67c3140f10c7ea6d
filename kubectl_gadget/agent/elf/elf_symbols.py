"""Offsets of functions in an ELF file, for uprobes; counted from the file's start.

It parses only what is needed of 64-bit little-endian ELF, since the agent uses only the standard library. The trap: the
file comes from a container, so every number in it may be false. A malformed file ends in "no such function".
"""

import fnmatch
import mmap
import os
import re
import struct
from collections.abc import Collection, Iterator
from typing import NamedTuple

_HEADER = struct.Struct("<16xHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_MAGIC = b"\x7fELF\x02\x01"
_SYMTAB, _DYNSYM = 2, 11
_FUNCTION, _CHOSEN = 2, 10
"""STT_FUNC, and STT_GNU_IFUNC."""
_LOAD = 1
_MOST_BYTES = 1 << 30
_MOST_SYMBOLS = 2_000_000
_MOST_COMPARED = 5_000
_MALFORMED = (struct.error, IndexError, ValueError, OverflowError)


def function_offsets(path: str, names: Collection[str]) -> dict[str, int]:
    """Returns offsets of those functions that the file defines; {} when it is not an ELF file. Raises OSError."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not _HEADER.size <= size <= _MOST_BYTES or file.read(len(_MAGIC)) != _MAGIC:
            return {}
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
            try:
                return _offsets(data, {name.encode(): name for name in names})
            except _MALFORMED:
                return {}


def address_offset(path: str, address: int) -> int | None:
    """Returns the offset in the file of an address in its symbol table; None when there is none. Raises OSError."""
    return _file_offset(_contents(path).segments, address)


def offset_address(path: str, offset: int) -> int | None:
    """Returns the address, as in the symbol table, of an offset in the file; None if it has none. Raises OSError."""
    for kind, _, start, address, _, in_file, _, _ in _contents(path).segments:
        if kind == _LOAD and start <= offset < start + in_file:
            return address + offset - start
    return None


def matching_functions(path: str, pattern: str) -> dict[str, int]:
    """Returns offsets by name of the functions whose names match a shell pattern. Raises OSError."""
    found: dict[str, int] = {}
    matches = re.compile(fnmatch.translate(pattern).encode()).match
    contents = _contents(path)
    for name, kind, address in contents.symbols():
        offset = _file_offset(contents.segments, address) if kind == _FUNCTION and matches(name) else None
        if offset is not None:
            found.setdefault(name.decode(errors="replace"), offset)
    return found


def is_chosen(path: str, symbol: str) -> bool:
    """Whether the file has several versions of that function, one of which is chosen at program start (an IFUNC, such
    as libc's memcpy). Raises OSError."""
    return any(kind == _CHOSEN and name == symbol.encode() for name, kind, _ in _contents(path).symbols())


def nearest_functions(path: str, symbol: str) -> str:
    """Returns the most similar function names in the file, joined by "or"; "" when there are none. Raises OSError."""
    wanted = symbol.strip("*?").encode()
    near: set[bytes] = set()
    for name, kind, _ in _contents(path).symbols():
        # A large program has many names, and comparing them takes time.
        if kind == _FUNCTION and len(near) < _MOST_COMPARED and _may_be_near(name.lower(), wanted.lower()):
            near.add(name)
    from difflib import get_close_matches  # 3 ms of each agent's start

    names = [name.decode(errors="replace") for name in near]
    return " or ".join(get_close_matches(wanted.decode(errors="replace"), names, 3, 0.5))


def _may_be_near(name: bytes, wanted: bytes) -> bool:
    if abs(len(name) - len(wanted)) > max(4, len(wanted)):
        return False
    return wanted in name or name[:2] == wanted[:2] or name[-3:] == wanted[-3:] or name.lstrip(b"_")[:2] == wanted[:2]


class _Contents(NamedTuple):
    """A file with its segments, and for each section its type, start, size and link."""

    data: bytes
    segments: list[tuple[int, ...]]
    sections: list[tuple[int, int, int, int]]

    def symbols(self) -> Iterator[tuple[bytes, int, int]]:
        """Yields names, types and addresses of all symbols that the file defines."""
        for kind, start, size, link in self.sections:
            if kind in (_SYMTAB, _DYNSYM) and link < len(self.sections):
                texts = self.sections[link][1]
                block = self.data[start : start + size]
                for text, info, _, section, address, _ in _SYMBOL.iter_unpack(
                    block[: len(block) // _SYMBOL.size * _SYMBOL.size]
                ):
                    if section:
                        name = self.data[texts + text : self.data.find(b"\0", texts + text)]
                        yield name, info & 15, address


def _contents(path: str) -> _Contents:
    """Reads a file. A malformed one has neither segments nor sections. Raises OSError."""
    with open(path, "rb") as file:
        data = file.read(_MOST_BYTES)
    try:
        return _Contents(data, *_tables(data))
    except _MALFORMED:
        return _Contents(data, [], [])


def is_go(path: str) -> bool:
    """Whether the program was built by Go. Raises OSError."""
    with open(path, "rb") as file:
        return file.read(_MOST_BYTES).find(b"\xff Go buildinf:") >= 0


def _tables(data: bytes | mmap.mmap) -> tuple[list[tuple[int, ...]], list[tuple[int, int, int, int]]]:
    """Returns segments, and for each section its type, start, size and link."""
    _, _, _, _, segments, sections, _, _, segment_size, segment_count, section_size, section_count, _ = (
        _HEADER.unpack_from(data)
    )
    loads = [_SEGMENT.unpack_from(data, segments + index * segment_size) for index in range(segment_count)]
    found = [_SECTION.unpack_from(data, sections + index * section_size) for index in range(section_count)]
    return loads, [(kind, start, size, link) for _, kind, _, _, start, size, link, _, _, _ in found]


def _offsets(data: mmap.mmap, wanted: dict[bytes, str]) -> dict[str, int]:
    loads, tables = _tables(data)
    found: dict[str, int] = {}
    for kind, start, size, link in tables:
        if kind not in (_SYMTAB, _DYNSYM) or link >= len(tables):
            continue
        for name, address in _functions(data, (start, size), tables[link][1:3], wanted):
            offset = _file_offset(loads, address)
            if offset is not None:
                found.setdefault(name, offset)
    return found


def _functions(
    data: mmap.mmap, symbols: tuple[int, int], texts: tuple[int, int], wanted: dict[bytes, str]
) -> Iterator[tuple[str, int]]:
    """Yields names and addresses. The texts are searched first: most files have none of the names, and many symbols."""
    end = texts[0] + texts[1]
    places: dict[int, str] = {}
    for text, name in wanted.items():
        # A linker may store malloc as the end of __libc_malloc.
        place = data.find(text + b"\0", texts[0], end)
        while place >= 0:
            places[place - texts[0]] = name
            place = data.find(text + b"\0", place + 1, end)
    if not places:
        return
    block = data[symbols[0] : symbols[0] + min(symbols[1], _MOST_SYMBOLS * _SYMBOL.size) // _SYMBOL.size * _SYMBOL.size]
    for text_offset, info, _, section, address, _ in _SYMBOL.iter_unpack(block):
        if text_offset in places and section and info & 15 == _FUNCTION:
            yield places[text_offset], address


def _file_offset(segments: list[tuple[int, ...]], address: int) -> int | None:
    for kind, _, offset, start, _, in_file, _, _ in segments:
        if kind == _LOAD and start <= address < start + in_file:
            return address - start + offset
    return None
