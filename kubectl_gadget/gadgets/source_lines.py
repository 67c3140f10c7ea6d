"""Removes the lines of C source from a BPF object: they are half of its bytes, and the kernel uses them only to quote
them in the verifier's log. Also puts its forward declarations in order, so that equal sources give equal objects.

Each function keeps the file and the number of its first line, since the kernel refuses an object in which only some
functions have lines. Types, relocations and lines share one section of texts, so all that stay are copied to
a new one.
"""

import struct
from collections.abc import Callable, Iterator, Mapping

_SECTION = struct.Struct("<IIQQQQIIQQ")
_NO_BITS = 8
_BTF = struct.Struct("<HBBIIIII")
"""struct btf_header (linux/btf.h): magic, version, flags, its length; place and length of types, and of texts"""
_EXT = struct.Struct("<HBBIIIIIII")
"""struct btf_ext_header (libbpf): the same, for functions, lines and relocations"""
_TYPE = struct.Struct("<III")
_NAMED_MEMBERS = {4: 12, 5: 12, 6: 8, 13: 8, 19: 12}
"""Bytes of each member of a struct, union, enum, function type or 64-bit enum. It begins with its name."""
_UNNAMED_MEMBERS = {15: 12}
"""Of the variables of a section."""
_MORE_BYTES = {1: 4, 3: 12, 14: 4, 17: 4}
"""After an integer, an array, a variable and a tag."""
_FORWARD, _ARRAY = 7, 3
_REFERRING = frozenset((2, 8, 9, 10, 11, 12, 13, 14, 17, 18))
"""Kinds whose third word is a type: pointers, typedefs, qualifiers, functions and what they return, variables, tags."""
_TYPED_MEMBERS = frozenset((4, 5, 13))
"""Of a struct, a union and a function type: the second word of each member is its type."""
_WORD = struct.Struct("<I")
_BLOCK = struct.Struct("<II")
"""A section's name, and its number of records."""


class _Texts:
    """A section of NUL-terminated texts, and the new one with those that are still used."""

    def __init__(self, old: bytes) -> None:
        self._old = old
        self.new = bytearray(b"\0")
        self._places = {b"": 0}

    def at(self, data: bytes | bytearray, at: int = 0) -> bytes:
        """Returns the text that the word refers to."""
        (start,) = _WORD.unpack_from(data, at)
        return self._old[start : self._old.index(b"\0", start)]

    def move(self, data: bytearray, at: int) -> None:
        """Copies the text that the word refers to, which then refers to the copy."""
        text = self.at(data, at)
        if text not in self._places:
            self._places[text] = len(self.new)
            self.new += text + b"\0"
        _WORD.pack_into(data, at, self._places[text])


def without_lines(elf: bytes) -> bytes:
    """Returns the object without them; an object without BTF as it is."""
    (table,) = struct.unpack_from("<Q", elf, 40)
    number, names = struct.unpack_from("<HH", elf, 60)
    sections = [list(_SECTION.unpack_from(elf, table + index * _SECTION.size)) for index in range(number)]
    content = [b"" if one[1] == _NO_BITS else elf[one[4] : one[4] + one[5]] for one in sections]
    titles = [content[names][one[0] :].partition(b"\0")[0] for one in sections]
    if b".BTF" not in titles or b".BTF.ext" not in titles:
        return elf
    types, more = titles.index(b".BTF"), titles.index(b".BTF.ext")
    content[types], content[more] = _smaller(content[types], content[more])
    made = bytearray(elf[:64])
    for index in sorted(range(1, number), key=lambda index: sections[index][4]):
        section = sections[index]
        made += bytes(-len(made) % max(1, section[8]))
        section[4] = len(made)
        if section[1] != _NO_BITS:
            section[5] = len(content[index])
        made += content[index]
    made += bytes(-len(made) % 8)
    struct.pack_into("<Q", made, 40, len(made))
    return bytes(made) + b"".join(_SECTION.pack(*section) for section in sections)


def _smaller(btf: bytes, ext: bytes) -> tuple[bytes, bytes]:
    *_, head, types_at, types_size, texts_at, texts_size = fields = _BTF.unpack_from(btf)
    texts = _Texts(btf[head + texts_at : head + texts_at + texts_size])
    types = bytearray(btf[head + types_at : head + types_at + types_size])
    numbers = _sort_forwards(types, texts)
    _move_names(types, texts)
    *start, head, functions_at, functions_size, lines_at, lines_size, rest_at, rest_size = _EXT.unpack_from(ext)
    begins = set[tuple[bytes, int]]()

    def function(section: bytes, record: bytearray) -> bool:
        begins.add((section, _WORD.unpack_from(record)[0]))
        return True

    def line(section: bytes, record: bytearray) -> bool:
        if (section, _WORD.unpack_from(record)[0]) not in begins:
            return False
        texts.move(record, 4)
        _WORD.pack_into(record, 8, 0)
        return True

    def relocation(_: bytes, record: bytearray) -> bool:
        texts.move(record, 8)
        _renumber(record, 4, numbers)
        return True

    parts = [
        _blocks(ext[head + at : head + at + size], texts, kept)
        for at, size, kept in (
            (functions_at, functions_size, function),
            (lines_at, lines_size, line),
            (rest_at, rest_size, relocation),
        )
    ]
    places = [number for index, part in enumerate(parts) for number in (sum(map(len, parts[:index])), len(part))]
    new = _BTF.pack(*fields[:3], _BTF.size, 0, len(types), len(types), len(texts.new)) + types + texts.new
    return new, _EXT.pack(*start, _EXT.size, *places) + b"".join(parts)


def _each(types: bytearray) -> Iterator[tuple[int, int, range]]:
    """Yields each type's place and kind, and the places of its members."""
    at = 0
    while at < len(types):
        information = _TYPE.unpack_from(types, at)[1]
        kind, members = information >> 24 & 31, information & 0xFFFF
        size = _NAMED_MEMBERS.get(kind) or _UNNAMED_MEMBERS.get(kind) or 0
        first = at + _TYPE.size + _MORE_BYTES.get(kind, 0)
        end = first + members * size
        yield at, kind, range(first, end, size or 1)
        at = end


def _move_names(types: bytearray, texts: _Texts) -> None:
    for at, kind, members in _each(types):
        texts.move(types, at)
        if kind in _NAMED_MEMBERS:
            for member in members:
                texts.move(types, member)


def _sort_forwards(types: bytearray, texts: _Texts) -> Mapping[int, int]:
    """Sorts the forward declarations by their names, in the places that they have. Returns the new number of each type
    that has moved. clang 19 lists them in the order of a hash table of addresses (FixupDerivedTypes in BTFDebug.cpp),
    which differs from run to run."""
    places = {number: at for number, (at, kind, _) in enumerate(_each(types), start=1) if kind == _FORWARD}
    records = {number: bytes(types[at : at + _TYPE.size]) for number, at in places.items()}
    order = sorted(places, key=lambda number: (texts.at(records[number]), records[number][4:]))
    numbers = {old: new for old, new in zip(order, places, strict=True) if old != new}
    if not numbers:
        return numbers
    for at, kind, members in _each(types):
        if kind in _REFERRING:
            _renumber(types, at + 8, numbers)
        if kind == _ARRAY:
            _renumber(types, at + _TYPE.size, numbers)
        if kind in _TYPED_MEMBERS:
            for member in members:
                _renumber(types, member + 4, numbers)
    for old, new in numbers.items():
        types[places[new] : places[new] + _TYPE.size] = records[old]
    return numbers


def _renumber(data: bytearray, at: int, numbers: Mapping[int, int]) -> None:
    (number,) = _WORD.unpack_from(data, at)
    if number in numbers:
        _WORD.pack_into(data, at, numbers[number])


def _blocks(data: bytes, texts: _Texts, keep: Callable[[bytes, bytearray], bool]) -> bytes:
    """Copies records, each section's in a block. `keep` decides about each, by its section, and moves its texts."""
    if not data:
        return b""
    (size,) = _WORD.unpack_from(data)
    made, at = bytearray(data[: _WORD.size]), _WORD.size
    while at < len(data):
        block = bytearray(data[at : at + _BLOCK.size])
        section, number = bytes(block[:4]), _BLOCK.unpack(block)[1]
        at += _BLOCK.size
        records = [bytearray(data[at + index * size : at + (index + 1) * size]) for index in range(number)]
        at += number * size
        kept = [record for record in records if keep(section, record)]
        texts.move(block, 0)
        _WORD.pack_into(block, 4, len(kept))
        made += block + b"".join(kept)
    return bytes(made)
