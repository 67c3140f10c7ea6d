"""Offsets of functions in an ELF file, for uprobes; counted from the file's start.

The trap: the file comes from a container, so every number in it may be false. In a malformed file no function is found.
A file has at most one symbol table of each type, so only the first of each is read.
"""

import fnmatch
import os
import re
import struct
from array import array
from collections.abc import Collection, Container, Iterator, Mapping
from contextlib import contextmanager
from itertools import compress, count, islice

from kubectl_gadget.agent.elf.elf_source import MOST_NAME_BYTES, ElfFile, FileSource, Section, StringTable

_SYMBOL = struct.Struct("<IBBHQQ")
_TABLES = (2, 11)
"""SHT_SYMTAB, SHT_DYNSYM."""
_FUNCTION, _IFUNC = 2, 10
"""STT_FUNC, and STT_GNU_IFUNC."""
_GO_MAGIC = b"\xff Go buildinf:"
_PIECE = 1 << 20
_MOST_BYTES = 1 << 30
"""Bytes of a file, read piece by piece."""
_MOST_STRINGS = 1 << 26
"""Bytes of a string table that are in memory at once."""
_MOST_SEARCHED = 1 << 28
"""Bytes of a string table that are searched, piece by piece."""
_MOST_SYMBOLS = 2_000_000
_MOST_PLACES = 10_000
"""Places of the wanted names in a string table; a name may be the end of many others."""
_MOST_COMPARED = 5_000


def function_offsets(path: str, names: Collection[str]) -> dict[str, int]:
    """Returns offsets of those functions that the file defines; {} when it is not an ELF file. Raises OSError."""
    found: dict[str, int] = {}
    wanted = {name.encode() + b"\0": name for name in names}
    with _opened(path) as elf:
        for strings, table in _symbol_tables(elf):
            # The strings are searched first: most files have none of the names, and many symbols.
            places = dict(islice(_places(strings, wanted), _MOST_PLACES))
            for place, info, _, section, address, _ in _symbols(elf, table, places) if places else ():
                offset = elf.offset_of(address) if section and info & 15 == _FUNCTION else None
                if offset is not None:
                    found.setdefault(places[place], offset)
    return found


def _places(strings: StringTable, wanted: Mapping[bytes, str]) -> Iterator[tuple[int, str]]:
    """Yields where the names are, by the strings to search for. A linker may store malloc as the end of
    __libc_malloc."""
    overlap = max(map(len, wanted), default=1) - 1
    for start in range(0, min(strings.size, _MOST_SEARCHED), _PIECE):
        piece = strings.source.read(strings.start + start, min(_PIECE + overlap, strings.size - start))
        for string, name in wanted.items():
            place = piece.find(string)
            while 0 <= place < _PIECE:
                yield start + place, name
                place = piece.find(string, place + 1)


def address_offset(path: str, address: int) -> int | None:
    """Returns the offset in the file of an address in its symbol table; None when there is none. Raises OSError."""
    with _opened(path) as elf:
        return elf.offset_of(address)


def offset_address(path: str, offset: int) -> int | None:
    """Returns the address, as in the symbol table, of an offset in the file; None if it has none. Raises OSError."""
    with _opened(path) as elf:
        return elf.address_of(offset)


def matching_functions(path: str, pattern: str) -> dict[str, int]:
    """Returns offsets by name of the functions whose names match a shell pattern. Raises OSError."""
    found: dict[str, int] = {}
    matches = re.compile(fnmatch.translate(pattern).encode()).match
    with _opened(path) as elf:
        for name, kind, address in _defined(elf):
            offset = elf.offset_of(address) if kind == _FUNCTION and matches(name) else None
            if offset is not None:
                found.setdefault(name.decode(errors="replace"), offset)
    return found


def is_ifunc(path: str, symbol: str) -> bool:
    """Whether the file has several versions of that function, one of which is chosen at program start (an IFUNC, such
    as libc's memcpy). Raises OSError."""
    with _opened(path) as elf:
        return any(kind == _IFUNC and name == symbol.encode() for name, kind, _ in _defined(elf))


def nearest_functions(path: str, symbol: str) -> str:
    """Returns the most similar function names in the file, joined by "or"; "" when there are none. Raises OSError."""
    wanted = symbol.strip("*?").encode()
    near: set[bytes] = set()
    with _opened(path) as elf:
        for name, kind, _ in _defined(elf):
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


def is_go(path: str) -> bool:
    """Whether the program was built by Go. Raises OSError."""
    with open(path, "rb") as file:
        offsets = range(0, min(os.fstat(file.fileno()).st_size, _MOST_BYTES), _PIECE)
        return any(_GO_MAGIC in os.pread(file.fileno(), _PIECE + len(_GO_MAGIC), offset) for offset in offsets)


@contextmanager
def _opened(path: str) -> Iterator[ElfFile]:
    with open(path, "rb") as file:
        yield ElfFile(FileSource(file.fileno()))


def _defined(elf: ElfFile) -> Iterator[tuple[bytes, int, int]]:
    """Yields names, types and addresses of all symbols that the file defines."""
    for table_of_names, table in _symbol_tables(elf):
        strings = elf.source.read(table_of_names.start, min(table_of_names.size, _MOST_STRINGS))
        for place, info, _, section, address, _ in _symbols(elf, table):
            if section:
                end = strings.find(b"\0", place, place + MOST_NAME_BYTES)
                yield strings[place:end] if end >= 0 else table_of_names.at(place), info & 15, address


def _symbol_tables(elf: ElfFile) -> Iterator[tuple[StringTable, Section]]:
    """Yields the strings and the section of the first symbol table of each type."""
    first = {one.kind: one for one in reversed(elf.sections) if one.kind in _TABLES and one.link < len(elf.sections)}
    for table in first.values():
        yield elf.strings(table.link), table


def _symbols(elf: ElfFile, table: Section, places: Container[int] | None = None) -> Iterator[tuple[int, ...]]:
    """Yields the symbols, or those whose names are at these places: no Python code runs for the others."""
    end = min(table.size // _SYMBOL.size, _MOST_SYMBOLS) * _SYMBOL.size
    piece_bytes = _PIECE // _SYMBOL.size * _SYMBOL.size
    for start in range(0, end, piece_bytes):
        block = elf.source.read(table.offset + start, min(piece_bytes, end - start))
        block = block[: len(block) // _SYMBOL.size * _SYMBOL.size]
        if places is None:
            yield from _SYMBOL.iter_unpack(block)
            continue
        names = array("I", block)[:: _SYMBOL.size // 4]
        for at in compress(count(0, _SYMBOL.size), map(places.__contains__, names)):
            yield _SYMBOL.unpack_from(block, at)
