"""Offsets of functions in an ELF file, for uprobes; counted from the file's start.

The trap: the file comes from a container, so every number in it may be false. In a malformed file no function is found.
A file has at most one symbol table of each type, so only the first of each is read.
"""

import fnmatch
import os
import re
import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from kubectl_gadget.agent.elf.elf_source import ElfFile, FileSource, Section

_SYMBOL = struct.Struct("<IBBHQQ")
_TABLES = (2, 11)
"""SHT_SYMTAB, SHT_DYNSYM."""
_FUNCTION, _IFUNC = 2, 10
"""STT_FUNC, and STT_GNU_IFUNC."""
_GO_MAGIC = b"\xff Go buildinf:"
_PIECE = 1 << 20
_MOST_BYTES = 1 << 30
"""Bytes of a file, read piece by piece."""
_MOST_STRINGS = 1 << 28
"""Bytes of a string table."""
_MOST_SYMBOLS = 2_000_000
_MOST_COMPARED = 5_000


def function_offsets(path: str, names: Collection[str]) -> dict[str, int]:
    """Returns offsets of those functions that the file defines; {} when it is not an ELF file. Raises OSError."""
    found: dict[str, int] = {}
    wanted = {name.encode(): name for name in names}
    with _opened(path) as elf:
        for strings, table in _symbol_tables(elf):
            # The strings are searched first: most files have none of the names, and many symbols.
            places = {place: name for string, name in wanted.items() for place in _places(strings, string)}
            for place, info, _, section, address, _ in _symbols(elf, table) if places else ():
                offset = elf.offset_of(address) if place in places and section and info & 15 == _FUNCTION else None
                if offset is not None:
                    found.setdefault(places[place], offset)
    return found


def _places(strings: bytes, string: bytes) -> Iterator[int]:
    """Yields the offsets of a string. A linker may store malloc as the end of __libc_malloc."""
    place = strings.find(string + b"\0")
    while place >= 0:
        yield place
        place = strings.find(string + b"\0", place + 1)


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
    for strings, table in _symbol_tables(elf):
        for place, info, _, section, address, _ in _symbols(elf, table):
            if section:
                yield strings[place : strings.find(b"\0", place)], info & 15, address


def _symbol_tables(elf: ElfFile) -> Iterator[tuple[bytes, Section]]:
    """Yields the strings and the section of the first symbol table of each type."""
    first = {one.kind: one for one in reversed(elf.sections) if one.kind in _TABLES and one.link < len(elf.sections)}
    for table in first.values():
        strings = elf.sections[table.link]
        yield elf.source.read(strings.offset, min(strings.size, _MOST_STRINGS)), table


def _symbols(elf: ElfFile, table: Section) -> Iterator[tuple[int, ...]]:
    block = elf.source.read(table.offset, min(table.size // _SYMBOL.size, _MOST_SYMBOLS) * _SYMBOL.size)
    return _SYMBOL.iter_unpack(block[: len(block) // _SYMBOL.size * _SYMBOL.size])
