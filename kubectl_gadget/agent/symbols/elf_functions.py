"""Finds functions in an ELF file: the one at an address, for stacks, and those with a name, for uprobes.

The file comes from a container, so every number in it may be false. In a malformed file no function is found.
"""

import fnmatch
import os
import re
import struct
import weakref
from array import array
from bisect import bisect_right
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import compress, count, islice
from operator import itemgetter
from typing import NamedTuple, TypeVar

try:
    import lzma
except ImportError:  # some builds of Python lack it
    has_lzma = False
else:
    has_lzma = True

from kubectl_gadget.agent.elf import (
    MOST_NAME_BYTES,
    ElfFile,
    ElfSource,
    FileSource,
    MemorySource,
    Section,
    StringTable,
    build_id_of,
)

# The function at an address: in .symtab, else in that of a separate file (debug_files.py), else in .dynsym and
# .gnu_debugdata.
#
# Go programs are usually stripped; for them, it uses the table of their own stack traces (below). The nearest symbol
# below an address is not its function when that symbol ends before it, so a symbol with a size counts only that far,
# and one without a size only where all symbols are known.

_SYMBOL_BYTES = 24
_HEAD = struct.Struct("<IB")
"""The head of a symbol: name, and kind and binding."""
_SYMTAB, _DYNSYM, _PROGBITS = 2, 11, 1
_IS_FUNCTION = bytes((info & 15) in (2, 10) for info in range(256))
"""By st_info: whether it is STT_FUNC or STT_GNU_IFUNC."""
_IS_SET = b"\0" + b"\1" * 255
_LOCAL, _WEAK = 0, 2
MOST_SYMBOLS = 2_000_000
MOST_DEBUGDATA = 64 << 20
"""Bytes of .gnu_debugdata, packed and unpacked."""
MOST_DEBUGDATA_IN_ALL = 128 << 20
"""Unpacked, of all open files. A file may use half of what the others leave, so that none takes all."""
_MOST_SECTIONS = 256
_MOST_NAMES = 1 << 14
"""Names that are kept for the next lookup; reading one takes a system call."""
_MOST_BUILD_ID = 128
"""Hexadecimal digits."""
_LOOK_BACK = 16
"""Symbols that are checked for one that extends to an address."""
_Item = TypeVar("_Item")


class Function(NamedTuple):
    """The function that contains an address."""

    name: str
    offset: int
    """from the function's start, in bytes"""


_numbers = count()
_unpacked: "weakref.WeakSet[ElfFunctions]" = weakref.WeakSet()
"""Those that keep an unpacked .gnu_debugdata."""


class _Table(NamedTuple):
    """A symbol table: where it is, and the number of its first symbol among the symbols of all tables."""

    first: int
    source: ElfSource
    start: int
    names: StringTable


class ElfFunctions:
    """The functions of one file. A malformed file simply has no functions.

    A file may have 100,000 symbols, and a handful of them is looked up, so no Python code runs for each of them.
    `separate` finds the file that has the symbols which were stripped from this one.
    """

    def __init__(self, source: ElfSource, separate: "Callable[[ElfFile], FileSource | None] | None" = None) -> None:
        self.number = next(_numbers)
        """unique in this process"""
        self._addresses, self._sizes = array("Q"), array("Q")
        """of all symbols, as they are in the file"""
        self._order = array("I")
        """which symbols are functions, sorted by address"""
        self._tables: list[_Table] = []
        self._go: _GoFunctions | None = None
        self._names: dict[int, str] = {}
        self._complete = False
        self._unpacked_bytes = 0
        self._debug_file: FileSource | None = None
        self._build_id: str | None = None
        self._elf = ElfFile(source)
        try:
            self._read(self._elf, separate)
        except (struct.error, IndexError, ValueError, OverflowError, MemoryError):
            self._order = array("I")

    @property
    def is_elf(self) -> bool:
        """True if the file is a 64-bit little-endian ELF file."""
        return self._elf.is_elf

    @property
    def build_id(self) -> str:
        """The build id in hex; "" if the file has none. Real ones have 8 to 32 bytes."""
        if self._build_id is None:
            found = build_id_of(self._elf)
            self._build_id = found if len(found) <= _MOST_BUILD_ID else ""
        return self._build_id

    @property
    def symbols(self) -> int:
        """The number of symbols that it keeps."""
        return len(self._addresses) + (len(self._go.offsets) if self._go else 0)

    def forget(self) -> None:
        """Frees the memory. Afterwards it has no functions."""
        self._addresses, self._sizes, self._order = array("Q"), array("Q"), array("I")
        self._tables, self._go = [], None
        self._names.clear()
        self._unpacked_bytes = 0
        if self._debug_file:
            self._debug_file.close()
            self._debug_file = None

    def address_at(self, file_offset: int) -> int | None:
        """Returns the address, in the file's own numbering, of an offset in the file."""
        return self._elf.address_of(file_offset)

    def find(self, address: int) -> Function | None:
        """Returns the function that contains an address in the file's own numbering."""
        place = _place_after(self._order, address, self._addresses.__getitem__) - 1
        for index in range(place, max(-1, place - _LOOK_BACK), -1):
            symbol = self._order[index]
            start, size = self._addresses[symbol], self._sizes[symbol]
            # A symbol without a size (assembly) extends to the next one.
            is_last = index == place and self._complete
            if address < start + size or (is_last and not any(map(self._sizes.__getitem__, self._same_start(index)))):
                return self._function(address, start, self._name(index))
        found = self._go.find(address) if self._go else None
        return self._function(address, *found) if found else None

    def _function(self, address: int, start: int, name: str) -> Function | None:
        if len(self._names) >= _MOST_NAMES:
            self._names.clear()
        self._names[start] = name
        return Function(name, address - start) if name else None

    def _read(self, elf: ElfFile, separate: "Callable[[ElfFile], FileSource | None] | None") -> None:
        self._order = self._sorted(self._add_tables(elf, _SYMTAB))
        if not self._order and separate and elf.is_elf:
            self._debug_file = separate(elf)
            if self._debug_file:
                self._order = self._sorted(self._add_tables(ElfFile(self._debug_file), _SYMTAB))
        self._complete = bool(self._order)
        if not self._complete:
            exported = self._add_tables(elf, _DYNSYM)
            self._order = self._sorted(exported + self._add_debugdata(elf))
            self._add_go(elf)

    def _sorted(self, symbols: list[int]) -> "array[int]":
        """Returns them sorted by address, those with the same address in the file's order. Symbols at 0 are left
        out: the file does not contain them."""
        symbols.sort(key=self._addresses.__getitem__)
        return array("I", symbols[_place_after(symbols, 0, self._addresses.__getitem__) :])

    def _add_tables(self, elf: ElfFile, wanted: int) -> list[int]:
        """Adds the file's symbol tables of this type. Returns which of their symbols are functions that it defines."""
        found: list[int] = []
        for table in elf.sections:
            first = len(self._addresses)
            if table.kind != wanted or table.link >= len(elf.sections) or first >= MOST_SYMBOLS:
                continue
            count = min(table.size // _SYMBOL_BYTES, MOST_SYMBOLS - first)
            data = elf.source.read(table.offset, count * _SYMBOL_BYTES)
            data = data[: len(data) // _SYMBOL_BYTES * _SYMBOL_BYTES]
            words = array("Q", data)
            self._addresses += words[1::3]
            self._sizes += words[2::3]
            self._tables.append(_Table(first, elf.source, table.offset, elf.strings(table.link)))
            # Byte 4 of a symbol is its kind; bytes 6 and 7 are its section, 0: imported. One byte per symbol is
            # combined for all symbols together, in one large number.
            is_function = int.from_bytes(data[4::_SYMBOL_BYTES].translate(_IS_FUNCTION), "big")
            section, rest = (int.from_bytes(data[at::_SYMBOL_BYTES].translate(_IS_SET), "big") for at in (6, 7))
            marks = (is_function & (section | rest)).to_bytes(len(words) // 3, "big")
            found += compress(range(first, len(self._addresses)), marks)
        return found

    def _add_debugdata(self, elf: ElfFile) -> list[int]:
        """Adds MiniDebugInfo: a compressed ELF file inside the file, with the symbols that .dynsym lacks."""
        for one in elf.sections:
            if one.kind == _PROGBITS and one.size < MOST_DEBUGDATA and elf.names.at(one.name) == b".gnu_debugdata":
                others = sum(other._unpacked_bytes for other in _unpacked)
                room = min(MOST_DEBUGDATA, (MOST_DEBUGDATA_IN_ALL - others) // 2)
                data = _unpack(elf.source.read(one.offset, one.size), room) if room > 0 else b""
                if found := self._add_tables(ElfFile(MemorySource(data)), _SYMTAB):
                    self._unpacked_bytes = len(data)
                    _unpacked.add(self)
                return found
        return []

    def _add_go(self, elf: ElfFile) -> None:
        sections = {elf.names.at(one.name): one for one in elf.sections[:_MOST_SECTIONS]}
        table = next((sections[name] for name in _GO_SECTIONS if name in sections), None)
        if table is not None and b".text" in sections:
            place = (table.offset, table.size)
            self._go = _read_go(elf.source, place, sections[b".text"].address, elf.entry)

    def _same_start(self, index: int) -> Iterator[int]:
        """Yields the symbols with the address of this one, at most 32."""
        start = self._addresses[self._order[index]]
        while index > 0 and self._addresses[self._order[index - 1]] == start:
            index -= 1
        for symbol in self._order[index : index + 32]:
            if self._addresses[symbol] != start:
                return
            yield symbol

    def _name(self, index: int) -> str:
        """Chooses one of the names for an address: few leading underscores, then global binding, then the shortest."""
        start, best = self._addresses[self._order[index]], list[tuple[int, int, int, bytes]]()
        if start in self._names:
            return self._names[start]
        for symbol in self._same_start(index):
            table = self._tables[_place_after(self._tables, symbol, itemgetter(0)) - 1]
            data = table.source.read(table.start + (symbol - table.first) * _SYMBOL_BYTES, _HEAD.size)
            if len(data) < _HEAD.size:
                continue
            place, info = _HEAD.unpack(data)
            name = table.names.at(place).partition(b"@")[0]
            binding = {_LOCAL: 2, _WEAK: 1}.get(info >> 4, 0)
            if name:
                best.append((len(name) - len(name.lstrip(b"_")), binding, len(name), name))
        return min(best)[3].decode(errors="replace") if best else ""


def _unpack(packed: bytes, most: int) -> bytes:
    """Returns what was compressed by xz; empty if it is malformed, or has more than this many bytes."""
    if not has_lzma:
        return b""
    try:
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=2 * MOST_DEBUGDATA)
        found = unpacker.decompress(packed, most)
    except lzma.LZMAError:
        return b""
    return found if unpacker.eof else b""


# The table of functions that every Go program has for its own stack traces, even when it was stripped: .gopclntab.
#
# Its layout is that of Go 1.18 and later (runtime/symtab.go, debug/gosym). The trap: offsets are counted from the start
# of Go's own code, which the table does not always contain; where the file's code begins with C, a wrong guess would
# shift all names. So a guess is accepted only when the program's entry point turns out to be Go's.

_GO_SECTIONS = (b".gopclntab", b".data.rel.ro.gopclntab")
_GO_MAGICS = (0xFFFFFFF0, 0xFFFFFFF1)
"""Go 1.18, Go 1.20"""
_GO_HEAD = struct.Struct("<I2xBB8Q")
_GO_FUNCTION = struct.Struct("<Ii")
_MOST_GO_FUNCTIONS = 2_000_000
_GO_ENTRY = "_rt0_"


class _GoFunctions:
    """The table, as it is in the file: offsets of functions in Go's code, sorted, and of their descriptions."""

    def __init__(self, source: ElfSource, table: int, words: "array[int]", base: int, names: StringTable) -> None:
        self._source, self._table = source, table
        self.offsets, self._places = words[0::2], words[1::2]
        """the last offset is the end of the last function"""
        self.base = base
        self._names = names

    def find(self, address: int) -> tuple[int, str] | None:
        """Returns start and name of the function that contains an address."""
        place = bisect_right(self.offsets, address - self.base) - 1
        if not 0 <= place < len(self._places) or address - self.base >= self.offsets[place + 1]:
            return None
        data = self._source.read(self._table + self._places[place], _GO_FUNCTION.size)
        name = self._names.at(_GO_FUNCTION.unpack(data)[1]) if len(data) == _GO_FUNCTION.size else b""
        return self.base + self.offsets[place], name.decode(errors="replace")


def _read_go(source: ElfSource, section: tuple[int, int], text_start: int, entry: int) -> _GoFunctions | None:
    """Reads a section, given by offset and size in bytes. Returns None when the table cannot be trusted.

    Raises struct.error and ValueError when the section has no such table.
    """
    start, size = section
    magic, _, pointer, count, _, go_start, names, _, _, _, functions = _GO_HEAD.unpack(
        source.read(start, _GO_HEAD.size)
    )
    if magic not in _GO_MAGICS or pointer != 8 or not 0 < count < _MOST_GO_FUNCTIONS or not names < size > functions:
        return None
    words = array("I", source.read(start + functions, 8 * count + 4))
    if len(words) != 2 * count + 1:
        return None
    strings = StringTable(source, start + names, size - names)
    found = _GoFunctions(source, start + functions, words, go_start or text_start, strings)
    if not go_start:
        begin, name = found.find(entry) or (0, "")
        if begin != entry or not name.startswith(_GO_ENTRY):
            return None
    return found


# Offsets of functions by name, for uprobes; counted from the file's start. A file has at most one symbol table of each
# type, so only the first of each is read.

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
"""Bytes of a string table that are in memory at a time."""
_MOST_SEARCHED = 1 << 28
"""Bytes of a string table that are searched, piece by piece."""
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
    """True if the file has several versions of this function, and one of them is chosen at program start (an IFUNC,
    such as libc's memcpy). Raises OSError."""
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
    """True if the program was built by Go. Raises OSError."""
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
    end = min(table.size // _SYMBOL.size, MOST_SYMBOLS) * _SYMBOL.size
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


def _place_after(items: Sequence[_Item], wanted: int, key: Callable[[_Item], int]) -> int:
    """bisect_right() with a key, which it does not have in Python 3.9."""
    low, high = 0, len(items)
    while low < high:
        middle = (low + high) // 2
        if key(items[middle]) > wanted:
            high = middle
        else:
            low = middle + 1
    return low
