"""The table of functions that every Go program has for its own stack traces, even when it was stripped: .gopclntab.

Its layout is that of Go 1.18 and later (runtime/symtab.go, debug/gosym). The trap: offsets are counted from the start
of Go's own code, which the table does not always contain; where the file's code begins with C, a wrong guess would
shift all names. So a guess is accepted only when the program's entry point turns out to be Go's.
"""

import struct
from array import array
from itertools import pairwise
from typing import NamedTuple

from kubectl_gadget.agent.elf.elf_source import ElfSource, ElfTexts

SECTIONS = (b".gopclntab", b".data.rel.ro.gopclntab")
_MAGIC = (0xFFFFFFF0, 0xFFFFFFF1)
"""Go 1.18, Go 1.20"""
_HEAD = struct.Struct("<I2xBB8Q")
_FUNCTION = struct.Struct("<Ii")
_MOST_FUNCTIONS = 2_000_000
_ENTRY = "_rt0_"


class GoNames(NamedTuple):
    """As ElfTexts, indexed by the offset of a function's description."""

    source: ElfSource
    descriptions: int
    names: ElfTexts

    def at(self, offset: int) -> bytes:
        data = self.source.read(self.descriptions + offset, _FUNCTION.size)
        return self.names.at(_FUNCTION.unpack(data)[1]) if len(data) == _FUNCTION.size else b""


class GoFunctions(NamedTuple):
    """Sorted addresses, and sizes; `places` are indexes into `names`."""

    starts: "array[int]"
    sizes: "array[int]"
    places: "array[int]"
    names: GoNames


def read(source: ElfSource, section: tuple[int, int], text_start: int, entry: int) -> GoFunctions | None:
    """Reads a section, given by offset and size in bytes. None when there is no table that can be trusted.

    Raises struct.error and ValueError when it is not such a table.
    """
    start, size = section
    magic, _, pointer, count, _, go_start, names, _, _, _, functions = _HEAD.unpack(source.read(start, _HEAD.size))
    if magic not in _MAGIC or pointer != 8 or not 0 < count < _MOST_FUNCTIONS or not names < size > functions:
        return None
    base = go_start or text_start
    words = array("I", source.read(start + functions, 8 * count + 4))
    if len(words) != 2 * count + 1:
        return None
    offsets, places = words[0::2], words[1::2]
    starts = array("Q", (base + offset for offset in offsets[:-1]))
    sizes = array("Q", (max(0, end - begin) for begin, end in pairwise(offsets)))
    described = GoNames(source, start + functions, ElfTexts(source, start + names, size - names))
    if not go_start:
        at_entry = next((place for begin, place in zip(starts, places, strict=False) if begin == entry), None)
        if at_entry is None or not described.at(at_entry).decode(errors="replace").startswith(_ENTRY):
            return None
    return GoFunctions(starts, sizes, places, described)
