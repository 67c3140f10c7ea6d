"""Finds the function of an address in an ELF file: in .symtab, else in .dynsym and .gnu_debugdata.

For Go programs, which are usually stripped, it uses the table of their own stack traces (go_functions.py). The trap:
the nearest symbol below an address is not its function when that symbol ends before it, so a symbol with a size counts
only that far, and one without a size only where all symbols are known.
"""

import lzma
import struct
from array import array
from bisect import bisect_right
from typing import NamedTuple

from kubectl_gadget.agent.elf import go_functions
from kubectl_gadget.agent.elf.elf_source import ElfSource, ElfTexts, MemorySource

_HEADER = struct.Struct("<16xHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SYMBOL_BYTES = 24
_MAGIC = b"\x7fELF\x02\x01"
_SYMTAB, _DYNSYM, _PROGBITS = 2, 11, 1
_FUNCTIONS = (2, 10)
"""STT_FUNC, STT_GNU_IFUNC"""
_LOAD, _EXECUTABLE = 1, 1
_LOCAL, _WEAK = 0, 2
_MOST_SYMBOL_BYTES = 2_000_000 * _SYMBOL_BYTES
_MOST_DEBUGDATA = 64 << 20
_MOST_SECTIONS = 256
_LOOK_BACK = 16
"""Symbols that are checked for one that extends to an address."""


class Function(NamedTuple):
    """The function that contains an address."""

    name: str
    offset: int
    """from the function's start, in bytes"""


class ElfFunctions:
    """The functions of one file. A malformed file simply has no functions."""

    def __init__(self, source: ElfSource) -> None:
        self._starts = array("Q")
        self._sizes = array("Q")
        self._heads = array("Q")
        """the first 8 bytes of each symbol: name, kind, binding, section"""
        self._places = array("B")
        """index into `_texts`"""
        self._texts: list[ElfTexts | go_functions.GoNames] = []
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
            start, size = self._starts[index], self._sizes[index]
            # A symbol without a size (assembly) extends to the next one.
            if address < start + size or (size == 0 and index == place and self._complete):
                name = self._name(index)
                return Function(name, address - start) if name else None
        return None

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
        found: list[tuple[int, int, int, int]] = []
        self._add_tables(source, tables, _SYMTAB, found)
        self._complete = bool(found)
        if not found:
            self._add_tables(source, tables, _DYNSYM, found)
            self._add_debugdata(source, tables, names, found)
            self._add_go(source, tables, names, fields[3], found)
        found.sort()
        starts, sizes, heads, places = zip(*found, strict=True) if found else ((), (), (), ())
        self._starts, self._sizes, self._heads = array("Q", starts), array("Q", sizes), array("Q", heads)
        self._places = array("B", places)

    def _add_tables(
        self, source: ElfSource, tables: list[tuple[int, ...]], wanted: int, found: list[tuple[int, int, int, int]]
    ) -> None:
        for _, kind, _, _, start, size, link, _, _, _ in tables:
            if kind != wanted or link >= len(tables) or len(self._texts) > 200:
                continue
            data = source.read(start, min(size, _MOST_SYMBOL_BYTES))
            words = array("Q", data[: len(data) // _SYMBOL_BYTES * _SYMBOL_BYTES])
            place = len(self._texts)
            self._texts.append(ElfTexts(source, *tables[link][4:6]))
            found += [
                (address, length, head, place)
                for head, address, length in zip(words[0::3], words[1::3], words[2::3], strict=True)
                if (head >> 32) & 15 in _FUNCTIONS and head >> 48 and address
            ]

    def _add_debugdata(
        self, source: ElfSource, tables: list[tuple[int, ...]], names: int, found: list[tuple[int, int, int, int]]
    ) -> None:
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
                self._add_tables(inner, inside, _SYMTAB, found)
                return

    def _add_go(
        self,
        source: ElfSource,
        tables: list[tuple[int, ...]],
        names: int,
        entry: int,
        found: list[tuple[int, int, int, int]],
    ) -> None:
        if names >= len(tables):
            return
        titles = ElfTexts(source, *tables[names][4:6])
        sections = {titles.at(table[0]): table for table in tables[:_MOST_SECTIONS]}
        table = next((sections[name] for name in go_functions.SECTIONS if name in sections), None)
        if table is None or b".text" not in sections:
            return
        read = go_functions.read(source, (table[4], table[5]), sections[b".text"][3], entry)
        if read is None:
            return
        place = len(self._texts)
        self._texts.append(read.names)
        found += [(start, size, at, place) for start, size, at in zip(*read[:3], strict=False)]

    def _name(self, index: int) -> str:
        """Chooses, among the names for one address, the public one."""
        start, best = self._starts[index], list[tuple[int, int, int, bytes]]()
        while index > 0 and self._starts[index - 1] == start:
            index -= 1
        while index < len(self._starts) and self._starts[index] == start and len(best) < 32:
            head = self._heads[index]
            name = self._texts[self._places[index]].at(head & 0xFFFFFFFF).partition(b"@")[0]
            binding = {_LOCAL: 2, _WEAK: 1}.get((head >> 36) & 15, 0)
            if name:
                best.append((len(name) - len(name.lstrip(b"_")), binding, len(name), name))
            index += 1
        return min(best)[3].decode(errors="replace") if best else ""
