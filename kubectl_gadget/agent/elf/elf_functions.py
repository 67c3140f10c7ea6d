"""Finds the function at an address in an ELF file: in .symtab, else in .dynsym and .gnu_debugdata.

For Go programs, which are usually stripped, it uses the table of their own stack traces (go_functions.py). The trap:
the nearest symbol below an address is not its function when that symbol ends before it, so a symbol with a size counts
only that far, and one without a size only where all symbols are known.
"""

import lzma
import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from itertools import compress, count
from operator import itemgetter
from typing import NamedTuple

from kubectl_gadget.agent.elf import go_functions
from kubectl_gadget.agent.elf.elf_source import ElfFile, ElfSource, MemorySource, StringTable

_SYMBOL_BYTES = 24
_HEAD = struct.Struct("<IB")
"""The head of a symbol: name, and kind and binding."""
_SYMTAB, _DYNSYM, _PROGBITS = 2, 11, 1
_IS_FUNCTION = bytes((info & 15) in (2, 10) for info in range(256))
"""By st_info: whether it is STT_FUNC or STT_GNU_IFUNC."""
_IS_SET = b"\0" + b"\1" * 255
_LOCAL, _WEAK = 0, 2
_MOST_SYMBOLS = 2_000_000
_MOST_DEBUGDATA = 64 << 20
_MOST_SECTIONS = 256
_MOST_NAMES = 1 << 14
"""Names that are kept for the next lookup; reading one takes a system call."""
_LOOK_BACK = 16
"""Symbols that are checked for one that extends to an address."""


class Function(NamedTuple):
    """The function that contains an address."""

    name: str
    offset: int
    """from the function's start, in bytes"""


_numbers = count()


class _Table(NamedTuple):
    """A symbol table: where it is, and the number of its first symbol among those of all tables."""

    first: int
    source: ElfSource
    start: int
    names: StringTable


class ElfFunctions:
    """The functions of one file. A malformed file simply has no functions.

    The trap: a file may have 100,000 symbols of which a handful is looked up, so no Python code runs for each of them.
    """

    def __init__(self, source: ElfSource) -> None:
        self.number = next(_numbers)
        """unique in this process"""
        self._addresses, self._sizes = array("Q"), array("Q")
        """of all symbols, as they are in the file"""
        self._order = array("I")
        """which symbols are functions, sorted by address"""
        self._tables: list[_Table] = []
        self._go: go_functions.GoFunctions | None = None
        self._names: dict[int, str] = {}
        self._complete = False
        self._elf = ElfFile(source)
        try:
            self._read(self._elf)
        except (struct.error, IndexError, ValueError, OverflowError, MemoryError, lzma.LZMAError):
            self._order = array("I")

    @property
    def is_elf(self) -> bool:
        """Whether the file is a 64-bit little-endian ELF file."""
        return self._elf.is_elf

    @property
    def symbols(self) -> int:
        """The number of symbols that it keeps."""
        return len(self._addresses) + (len(self._go.offsets) if self._go else 0)

    def forget(self) -> None:
        """Frees the memory. It has no functions from now on."""
        self._addresses, self._sizes, self._order = array("Q"), array("Q"), array("I")
        self._tables, self._go = [], None
        self._names.clear()

    def address_at(self, file_offset: int) -> int | None:
        """Returns the address, in the file's own numbering, of an offset in the file."""
        return self._elf.address_of(file_offset)

    def find(self, address: int) -> Function | None:
        """Returns the function that contains an address in the file's own numbering."""
        place = bisect_right(self._order, address, key=self._addresses.__getitem__) - 1
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

    def _read(self, elf: ElfFile) -> None:
        self._order = self._sorted(self._add_tables(elf, _SYMTAB))
        self._complete = bool(self._order)
        if not self._complete:
            exported = self._add_tables(elf, _DYNSYM)
            self._order = self._sorted(exported + self._add_debugdata(elf))
            self._add_go(elf)

    def _sorted(self, symbols: list[int]) -> "array[int]":
        """Returns them sorted by address, those with the same address in the file's order. Symbols at 0 are left
        out: the file does not contain them."""
        symbols.sort(key=self._addresses.__getitem__)
        return array("I", symbols[bisect_right(symbols, 0, key=self._addresses.__getitem__) :])

    def _add_tables(self, elf: ElfFile, wanted: int) -> list[int]:
        """Adds the file's symbol tables of this type. Returns which of their symbols are functions that it defines."""
        found: list[int] = []
        for table in elf.sections:
            first = len(self._addresses)
            if table.kind != wanted or table.link >= len(elf.sections) or first >= _MOST_SYMBOLS:
                continue
            count = min(table.size // _SYMBOL_BYTES, _MOST_SYMBOLS - first)
            data = elf.source.read(table.offset, count * _SYMBOL_BYTES)
            data = data[: len(data) // _SYMBOL_BYTES * _SYMBOL_BYTES]
            words = array("Q", data)
            self._addresses += words[1::3]
            self._sizes += words[2::3]
            self._tables.append(_Table(first, elf.source, table.offset, elf.strings(table.link)))
            # Byte 4 of a symbol is its kind; bytes 6 and 7 are its section, 0: imported. One byte per symbol is
            # combined for all symbols at once, in one large number.
            is_function = int.from_bytes(data[4::_SYMBOL_BYTES].translate(_IS_FUNCTION))
            section, rest = (int.from_bytes(data[at::_SYMBOL_BYTES].translate(_IS_SET)) for at in (6, 7))
            marks = (is_function & (section | rest)).to_bytes(len(words) // 3)
            found += compress(range(first, len(self._addresses)), marks)
        return found

    def _add_debugdata(self, elf: ElfFile) -> list[int]:
        """Adds MiniDebugInfo: a compressed ELF file inside the file, with the symbols that .dynsym lacks."""
        for one in elf.sections:
            if one.kind == _PROGBITS and one.size < _MOST_DEBUGDATA and elf.names.at(one.name) == b".gnu_debugdata":
                unpacker = lzma.LZMADecompressor(memlimit=2 * _MOST_DEBUGDATA)
                unpacked = unpacker.decompress(elf.source.read(one.offset, one.size), _MOST_DEBUGDATA)
                return self._add_tables(ElfFile(MemorySource(unpacked)), _SYMTAB)
        return []

    def _add_go(self, elf: ElfFile) -> None:
        sections = {elf.names.at(one.name): one for one in elf.sections[:_MOST_SECTIONS]}
        table = next((sections[name] for name in go_functions.SECTIONS if name in sections), None)
        if table is not None and b".text" in sections:
            place = (table.offset, table.size)
            self._go = go_functions.read(elf.source, place, sections[b".text"].address, elf.entry)

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
            table = self._tables[bisect_right(self._tables, symbol, key=itemgetter(0)) - 1]
            data = table.source.read(table.start + (symbol - table.first) * _SYMBOL_BYTES, _HEAD.size)
            if len(data) < _HEAD.size:
                continue
            place, info = _HEAD.unpack(data)
            name = table.names.at(place).partition(b"@")[0]
            binding = {_LOCAL: 2, _WEAK: 1}.get(info >> 4, 0)
            if name:
                best.append((len(name) - len(name.lstrip(b"_")), binding, len(name), name))
        return min(best)[3].decode(errors="replace") if best else ""
