"""The table of functions that every Go program has for its own stack traces, even when it was stripped: .gopclntab.

Its layout is that of Go 1.18 and later (runtime/symtab.go, debug/gosym). The trap: offsets are counted from the start
of Go's own code, which the table does not always contain; where the file's code begins with C, a wrong guess would
shift all names. So a guess is accepted only when the program's entry point turns out to be Go's.
"""

import struct
from array import array
from bisect import bisect_right

from kubectl_gadget.agent.elf.elf_source import ElfSource, StringTable

SECTIONS = (b".gopclntab", b".data.rel.ro.gopclntab")
_MAGIC = (0xFFFFFFF0, 0xFFFFFFF1)
"""Go 1.18, Go 1.20"""
_HEAD = struct.Struct("<I2xBB8Q")
_FUNCTION = struct.Struct("<Ii")
_MOST_FUNCTIONS = 2_000_000
_ENTRY = "_rt0_"


class GoFunctions:
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
        data = self._source.read(self._table + self._places[place], _FUNCTION.size)
        name = self._names.at(_FUNCTION.unpack(data)[1]) if len(data) == _FUNCTION.size else b""
        return self.base + self.offsets[place], name.decode(errors="replace")


def read(source: ElfSource, section: tuple[int, int], text_start: int, entry: int) -> GoFunctions | None:
    """Reads a section, given by offset and size in bytes. Returns None when the table cannot be trusted.

    Raises struct.error and ValueError when the section has no such table.
    """
    start, size = section
    magic, _, pointer, count, _, go_start, names, _, _, _, functions = _HEAD.unpack(source.read(start, _HEAD.size))
    if magic not in _MAGIC or pointer != 8 or not 0 < count < _MOST_FUNCTIONS or not names < size > functions:
        return None
    words = array("I", source.read(start + functions, 8 * count + 4))
    if len(words) != 2 * count + 1:
        return None
    strings = StringTable(source, start + names, size - names)
    found = GoFunctions(source, start + functions, words, go_start or text_start, strings)
    if not go_start:
        begin, name = found.find(entry) or (0, "")
        if begin != entry or not name.startswith(_ENTRY):
            return None
    return found
