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
from itertools import compress
from typing import NamedTuple

from kubectl_gadget.agent.elf import go_functions
from kubectl_gadget.agent.elf.elf_source import ElfSource, ElfTexts, MemorySource

_HEADER = struct.Struct("<16xHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SYMBOL_BYTES = 24
_MAGIC = b"\x7fELF\x02\x01"
_SYMTAB, _DYNSYM, _PROGBITS = 2, 11, 1
_IS_FUNCTION = bytes((info & 15) in (2, 10) for info in range(256))
"""By st_info: whether it is STT_FUNC or STT_GNU_IFUNC."""
_LOAD, _EXECUTABLE = 1, 1
_LOCAL, _WEAK = 0, 2
_MOST_SYMBOL_BYTES = 2_000_000 * _SYMBOL_BYTES
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


class ElfFunctions:
    """The functions of one file. A malformed file simply has no functions.

    The trap: a file may have 100,000 symbols of which a handful is looked up, so no Python code runs for each of them.
    """

    def __init__(self, source: ElfSource) -> None:
        self._starts = array("Q")
        """sorted"""
        self._order = array("I")
        """for each start, the index of its symbol in what follows"""
        self._sizes = array("Q")
        self._heads = array("Q")
        """the first 8 bytes of each symbol: name, kind, binding, section"""
        self._places = array("B")
        """index into `_texts`"""
        self._texts: list[ElfTexts] = []
        self._go: go_functions.GoFunctions | None = None
        self._names: dict[int, str] = {}
        self._complete = False
        self._loads: list[tuple[int, int, int]] = []
        self.is_elf = source.read(0, len(_MAGIC)) == _MAGIC
        if self.is_elf:
            try:
                self._read(source)
            except (struct.error, IndexError, ValueError, OverflowError, MemoryError, lzma.LZMAError):
                self._starts = array("Q")

    def address_at(self, file_offset: int) -> int | None:
        """Returns the address, in the file's own numbering, of an offset in the file."""
        for offset, size, address in self._loads:
            if offset <= file_offset < offset + size:
                return address + file_offset - offset
        return None

    def find(self, address: int) -> Function | None:
        """Returns the function that contains an address in the file's own numbering."""
        place = bisect_right(self._starts, address) - 1
        for index in range(place, max(-1, place - _LOOK_BACK), -1):
            start = self._starts[index]
            size = self._sizes[self._order[index]]
            if address < start + size or (index == place and self._complete and self._has_no_size(index)):
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
        segments, sections, segment_size, segment_count, section_size, section_count, names = (
            *fields[4:6],
            *fields[8:13],
        )
        for index in range(segment_count):
            data = source.read(segments + index * segment_size, _SEGMENT.size)
            kind, flags, offset, address, _, in_file, _, _ = _SEGMENT.unpack(data)
            if kind == _LOAD and flags & _EXECUTABLE:
                self._loads.append((offset, in_file, address))
        block = source.read(sections, section_size * section_count)
        tables = [_SECTION.unpack_from(block, index * section_size) for index in range(section_count)]
        self._add_tables(source, tables, _SYMTAB)
        self._complete = bool(self._starts)
        if not self._complete:
            self._add_tables(source, tables, _DYNSYM)
            self._add_debugdata(source, tables, names)
            self._add_go(source, tables, names, fields[3])
        # Stable: symbols of one start stay as they are in the file.
        order = sorted(range(len(self._starts)), key=self._starts.__getitem__)
        self._starts = array("Q", map(self._starts.__getitem__, order))
        self._order = array("I", order)

    def _add_tables(self, source: ElfSource, tables: list[tuple[int, ...]], wanted: int) -> None:
        for _, kind, _, _, start, size, link, _, _, _ in tables:
            if kind != wanted or link >= len(tables) or len(self._texts) > 200:
                continue
            data = source.read(start, min(size, _MOST_SYMBOL_BYTES))
            data = data[: len(data) // _SYMBOL_BYTES * _SYMBOL_BYTES]
            words, sections = array("Q", data), array("H", data)[3::12]
            heads, addresses, sizes = words[0::3], words[1::3], words[2::3]
            kept: list[int] = list(compress(range(len(heads)), data[4::_SYMBOL_BYTES].translate(_IS_FUNCTION)))
            for needed in (sections, addresses):  # neither imported nor at 0
                kept = list(compress(kept, map(needed.__getitem__, kept)))
            self._starts.extend(map(addresses.__getitem__, kept))
            self._sizes.extend(map(sizes.__getitem__, kept))
            self._heads.extend(map(heads.__getitem__, kept))
            self._places.extend(bytes((len(self._texts),)) * len(kept))
            self._texts.append(ElfTexts(source, *tables[link][4:6]))

    def _add_debugdata(self, source: ElfSource, tables: list[tuple[int, ...]], names: int) -> None:
        """Adds MiniDebugInfo: a compressed ELF file inside the file, with the symbols that .dynsym lacks."""
        if names >= len(tables):
            return
        texts = ElfTexts(source, *tables[names][4:6])
        for name, kind, _, _, start, size, _, _, _, _ in tables:
            if kind == _PROGBITS and size < _MOST_DEBUGDATA and texts.at(name) == b".gnu_debugdata":
                unpacked = lzma.LZMADecompressor().decompress(source.read(start, size), _MOST_DEBUGDATA)
                inner = MemorySource(unpacked)
                fields = _HEADER.unpack(inner.read(0, _HEADER.size))
                block = inner.read(fields[5], fields[10] * fields[11])
                inside = [_SECTION.unpack_from(block, index * fields[10]) for index in range(fields[11])]
                self._add_tables(inner, inside, _SYMTAB)
                return

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
        start = self._starts[index]
        while index > 0 and self._starts[index - 1] == start:
            index -= 1
        for place in range(index, min(index + 32, len(self._starts))):
            if self._starts[place] != start:
                return
            yield self._order[place]

    def _has_no_size(self, index: int) -> bool:
        """Whether it is a symbol without a size (assembly), which extends to the next one."""
        return not any(self._sizes[symbol] for symbol in self._same_start(index))

    def _name(self, index: int) -> str:
        """Chooses, among the names for one address, the public one."""
        start, best = self._starts[index], list[tuple[int, int, int, bytes]]()
        if start in self._names:
            return self._names[start]
        for symbol in self._same_start(index):
            head = self._heads[symbol]
            name = self._texts[self._places[symbol]].at(head & 0xFFFFFFFF).partition(b"@")[0]
            binding = {_LOCAL: 2, _WEAK: 1}.get((head >> 36) & 15, 0)
            if name:
                best.append((len(name) - len(name.lstrip(b"_")), binding, len(name), name))
        return min(best)[3].decode(errors="replace") if best else ""
