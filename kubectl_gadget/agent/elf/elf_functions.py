"""Finds the function of an address in an ELF file: in .symtab, else in .dynsym and .gnu_debugdata.

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
from kubectl_gadget.agent.elf.elf_source import ElfSource, ElfTexts, MemorySource

_HEADER = struct.Struct("<16xHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SYMBOL_BYTES = 24
_HEAD = struct.Struct("<IB")
"""The head of a symbol: name, and kind and binding."""
_MAGIC = b"\x7fELF\x02\x01"
_SYMTAB, _DYNSYM, _PROGBITS = 2, 11, 1
_IS_FUNCTION = bytes((info & 15) in (2, 10) for info in range(256))
"""By st_info: whether it is STT_FUNC or STT_GNU_IFUNC."""
_IS_SET = b"\0" + b"\1" * 255
_LOAD, _EXECUTABLE = 1, 1
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
    """A table of symbols; the number of its first one, and where it is."""

    first: int
    source: ElfSource
    start: int
    names: ElfTexts


class ElfFunctions:
    """The functions of one file. A malformed file simply has no functions.

    The trap: a file may have 100,000 symbols of which a handful is looked up, so no Python code runs for each of them.
    """

    def __init__(self, source: ElfSource) -> None:
        self.number = next(_numbers)
        """of no other file"""
        self._addresses, self._sizes = array("Q"), array("Q")
        """of all symbols, as they are in the file"""
        self._order = array("I")
        """which symbols are functions, sorted by address"""
        self._tables: list[_Table] = []
        self._go: go_functions.GoFunctions | None = None
        self._names: dict[int, str] = {}
        self._complete = False
        self._loads: list[tuple[int, int, int]] = []
        self.is_elf = source.read(0, len(_MAGIC)) == _MAGIC
        if self.is_elf:
            try:
                self._read(source)
            except (struct.error, IndexError, ValueError, OverflowError, MemoryError, lzma.LZMAError):
                self._order = array("I")

    def address_at(self, file_offset: int) -> int | None:
        """Returns the address, in the file's own numbering, of an offset in the file."""
        for offset, size, address in self._loads:
            if offset <= file_offset < offset + size:
                return address + file_offset - offset
        return None

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

    def _read(self, source: ElfSource) -> None:
        fields = _HEADER.unpack(source.read(0, _HEADER.size))
        entry, segments, _, _, _, segment_size, segment_count, _, _, names = fields[3:]
        for index in range(segment_count):
            data = source.read(segments + index * segment_size, _SEGMENT.size)
            kind, flags, offset, address, _, in_file, _, _ = _SEGMENT.unpack(data)
            if kind == _LOAD and flags & _EXECUTABLE:
                self._loads.append((offset, in_file, address))
        tables = _sections(source, fields)
        self._order = self._sorted(self._add_tables(source, tables, _SYMTAB))
        self._complete = bool(self._order)
        if not self._complete:
            exported = self._add_tables(source, tables, _DYNSYM)
            self._order = self._sorted(exported + self._add_debugdata(source, tables, names))
            self._add_go(source, tables, names, entry)

    def _sorted(self, symbols: list[int]) -> "array[int]":
        """Returns them by address. Those of one address stay as they are in the file, those at 0 are not in it."""
        symbols.sort(key=self._addresses.__getitem__)
        return array("I", symbols[bisect_right(symbols, 0, key=self._addresses.__getitem__) :])

    def _add_tables(self, source: ElfSource, tables: list[tuple[int, ...]], wanted: int) -> list[int]:
        """Returns which of its symbols are functions that the file defines."""
        found: list[int] = []
        for _, kind, _, _, start, size, link, _, _, _ in tables:
            first = len(self._addresses)
            if kind != wanted or link >= len(tables) or first >= _MOST_SYMBOLS:
                continue
            data = source.read(start, min(size // _SYMBOL_BYTES, _MOST_SYMBOLS - first) * _SYMBOL_BYTES)
            data = data[: len(data) // _SYMBOL_BYTES * _SYMBOL_BYTES]
            words = array("Q", data)
            self._addresses += words[1::3]
            self._sizes += words[2::3]
            self._tables.append(_Table(first, source, start, ElfTexts(source, *tables[link][4:6])))
            # One bit of each byte is for one symbol. Byte 4 is its kind; bytes 6 and 7 are its section, 0: imported.
            is_function = int.from_bytes(data[4::_SYMBOL_BYTES].translate(_IS_FUNCTION))
            section, rest = (int.from_bytes(data[at::_SYMBOL_BYTES].translate(_IS_SET)) for at in (6, 7))
            marks = (is_function & (section | rest)).to_bytes(len(words) // 3)
            found += compress(range(first, len(self._addresses)), marks)
        return found

    def _add_debugdata(self, source: ElfSource, tables: list[tuple[int, ...]], names: int) -> list[int]:
        """Adds MiniDebugInfo: a compressed ELF file inside the file, with the symbols that .dynsym lacks."""
        if names >= len(tables):
            return []
        texts = ElfTexts(source, *tables[names][4:6])
        for name, kind, _, _, start, size, _, _, _, _ in tables:
            if kind == _PROGBITS and size < _MOST_DEBUGDATA and texts.at(name) == b".gnu_debugdata":
                unpacked = lzma.LZMADecompressor().decompress(source.read(start, size), _MOST_DEBUGDATA)
                inner = MemorySource(unpacked)
                return self._add_tables(inner, _sections(inner, _HEADER.unpack(inner.read(0, _HEADER.size))), _SYMTAB)
        return []

    def _add_go(self, source: ElfSource, tables: list[tuple[int, ...]], names: int, entry: int) -> None:
        if names >= len(tables):
            return
        titles = ElfTexts(source, *tables[names][4:6])
        sections = {titles.at(table[0]): table for table in tables[:_MOST_SECTIONS]}
        table = next((sections[name] for name in go_functions.SECTIONS if name in sections), None)
        if table is not None and b".text" in sections:
            self._go = go_functions.read(source, (table[4], table[5]), sections[b".text"][3], entry)

    def _same_start(self, index: int) -> Iterator[int]:
        """Yields the symbols that begin where this one does, at most 32."""
        start = self._addresses[self._order[index]]
        while index > 0 and self._addresses[self._order[index - 1]] == start:
            index -= 1
        for symbol in self._order[index : index + 32]:
            if self._addresses[symbol] != start:
                return
            yield symbol

    def _name(self, index: int) -> str:
        """Chooses, among the names for one address, the public one."""
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


def _sections(source: ElfSource, header: tuple[int, ...]) -> list[tuple[int, ...]]:
    start, size, count = header[5], header[10], header[11]
    block = source.read(start, size * count)
    return [_SECTION.unpack_from(block, index * size) for index in range(count)]
