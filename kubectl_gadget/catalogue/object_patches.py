"""Differences between an object for one architecture and that for the other, which are mostly equal.

The wheel has x86-64's objects, and patches that make arm64's of them: a tenth of the size. A patch is a sequence of
pieces: where in the first object it begins, how many bytes are copied from there, and how many follow in the patch.
"""

import struct
from collections.abc import Iterator

_PIECE = struct.Struct("<III")
_BLOCK = 24
"""The least number of bytes that are copied: twice that of a piece."""
_STEP = 4


def make(first: bytes, second: bytes) -> bytes:
    """Returns the patch that makes the second object of the first."""
    pieces = []
    literal = at = 0
    for start, place, length in _equal(first, second):
        pieces += [_PIECE.pack(at, 0, start - literal), second[literal:start]] if start > literal else []
        pieces.append(_PIECE.pack(place, length, 0))
        literal, at = start + length, place + length
    rest = second[literal:]
    return b"".join([*pieces, _PIECE.pack(at, 0, len(rest)), rest])


def apply(first: bytes, patch: bytes) -> bytes:
    """Returns the second object."""
    made, at = [], 0
    while at < len(patch):
        place, copied, given = _PIECE.unpack_from(patch, at)
        at += _PIECE.size
        made += [first[place : place + copied], patch[at : at + given]]
        at += given
    return b"".join(made)


def _equal(first: bytes, second: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields where in the second, and where in the first, so many equal bytes begin; in the order of the second."""
    places: dict[bytes, int] = {}
    for place in range(0, len(first) - _BLOCK + 1, _STEP):
        places.setdefault(first[place : place + _BLOCK], place)
    start, after = 0, 0
    while start <= len(second) - _BLOCK:
        block = second[start : start + _BLOCK]
        # Equal blocks are frequent, so the place after the last piece is tried first, as if bytes were only replaced.
        place = after if first[after : after + _BLOCK] == block else places.get(block, -1)
        if place < 0:
            start, after = start + 1, after + 1
            continue
        length = _common(first[place:], second[start:])
        yield start, place, length
        start, after = start + length, place + length


def _common(one: bytes, other: bytes) -> int:
    """Returns how many bytes two begin with that are equal."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
