"""The types in a BTF section, as numbers (Documentation/bpf/btf.rst). Little-endian machines only.

A type has three words, and more if it is of certain kinds: name, information (kind, number of members), and a size or
another type.
"""

import struct
from array import array
from collections.abc import Iterator

INT, PTR, ARRAY, STRUCT, UNION, ENUM = range(1, 7)
TYPEDEF, VOLATILE, CONST, RESTRICT = range(8, 12)
FUNC, FUNC_PROTO, VAR, DATASEC = range(12, 16)
DECL_TAG, TYPE_TAG, ENUM64 = range(17, 20)
_WORDS = {INT: (4, 0), ARRAY: (6, 0), STRUCT: (3, 3), UNION: (3, 3), ENUM: (3, 2), FUNC_PROTO: (3, 2)}
_WORDS |= {VAR: (4, 0), DATASEC: (3, 3), DECL_TAG: (4, 0), ENUM64: (3, 3)}
"""By kind: the number of a type's own words, and of each of its members. 3 and 0 for other kinds."""
_HEADER = struct.Struct("<HBBIIIII")
_MAGIC = 0xEB9F


class _Lengths(dict[int, int]):
    """The number of a type's words, by its information."""

    def __missing__(self, information: int) -> int:
        own, of_member = _WORDS.get(kind(information), (3, 0))
        self[information] = found = own + of_member * (information & 0xFFFF)
        return found


class BtfRecords:
    """Raises ValueError and struct.error when the data is not BTF, and IndexError when it is truncated."""

    def __init__(self, data: bytes) -> None:
        magic, _, _, head, types, types_size, strings, strings_size = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise ValueError("not valid BTF")
        self.words = array("I", data[head + types : head + types + types_size])
        self.strings = data[head + strings : head + strings + strings_size]
        self.starts = array("I", [0])
        """the index in `words` at which each type begins, by its id; 0 is void, which has no words"""
        self.named: dict[int, list[int]] = {}
        """ids by name, which is an offset in the strings; without functions, which are half of all types"""
        words, lengths, add = self.words, _Lengths(), self.starts.append
        at, end = 0, len(words)
        while at < end:
            information = words[at + 1]
            if (name := words[at]) and information >> 24 & 0x1F != FUNC:
                self.named.setdefault(name, []).append(len(self.starts))
            add(at)
            at += lengths[information]

    def head(self, id: int) -> tuple[int, int, int]:
        """Returns a type's name (an offset in the strings), kind, and size or other type."""
        name, information, last = self.words[(at := self.starts[id]) : at + 3]
        return name, kind(information), last

    def record(self, id: int) -> "array[int]":
        """Returns a type's words."""
        at = self.starts[id]
        return self.words[at : at + _Lengths()[self.words[at + 1]]]

    def text(self, offset: int) -> bytes:
        return self.strings[offset : self.strings.index(b"\0", offset)]


def kind(information: int) -> int:
    return information >> 24 & 0x1F


def places_of_types(record: "array[int]") -> Iterator[int]:
    """Yields the indexes of a type's words that are ids of other types."""
    its_kind = kind(record[1])
    if its_kind in (PTR, TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG):
        yield 2
    elif its_kind == ARRAY:
        yield from (3, 4)
    elif its_kind in (STRUCT, UNION):
        yield from range(4, len(record), 3)
    elif its_kind == FUNC_PROTO:
        yield from (2, *range(4, len(record), 2))


def places_of_names(record: "array[int]") -> Iterator[int]:
    """Yields the indexes of a type's words that are offsets in the strings."""
    yield 0
    own, of_member = _WORDS.get(kind(record[1]), (3, 0))
    if of_member:
        yield from range(own, len(record), of_member)


def section(types: "array[int]", strings: bytes) -> bytes:
    """Returns a BTF section."""
    words = types.tobytes()
    return _HEADER.pack(_MAGIC, 1, 0, _HEADER.size, 0, len(words), len(words), len(strings)) + words + strings
