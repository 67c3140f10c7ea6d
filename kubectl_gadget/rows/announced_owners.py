"""The containers of a node as it announced them, by cgroup, in little memory.

Most of a thousand nodes' containers never have a row. Until one does, what only one container has is bytes, and what
many have is one tuple for all. Until a node's containers change, the bytes of all of them are one object.
"""

import marshal
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

Packed = bytes | str
"""Hexadecimal digits as the bytes that they stand for, which take half the memory; any other text as it is."""
_ID_DIGITS, _UID_DIGITS = 64, 32
_HOST = -1
"""instead of the place of a container's bytes"""


def packed_id(id: str) -> Packed:
    return _packed(id, id, _ID_DIGITS)


def packed_uid(uid: str) -> Packed:
    digits = uid.replace("-", "")
    return _packed(uid, digits, _UID_DIGITS) if _hyphenated(digits) == uid else uid


def unpacked_id(packed: Packed) -> str:
    return packed if isinstance(packed, str) else packed.hex()


def unpacked_uid(packed: Packed) -> str:
    return packed if isinstance(packed, str) else _hyphenated(packed.hex())


def _packed(text: str, digits: str, count: int) -> Packed:
    """The packed text, if these of its characters are so many digits."""
    try:
        packed = bytes.fromhex(digits)
    except ValueError:
        return text
    return packed if len(digits) == count and packed.hex() == digits else text


def _hyphenated(digits: str) -> str:
    """As Kubernetes writes UIDs: 8-4-4-4-12."""
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class SharedNames(NamedTuple):
    """What containers on many nodes have in common."""

    namespace: str
    container: str
    image: str
    runtime: str


@lru_cache(4096)
def shared_names(*names: str) -> SharedNames:
    """The members of SharedNames, mostly as one object for all containers that have them."""
    return SharedNames(*map(sys.intern, names))


OwnNames = tuple[Packed, bool, bool, str, Packed]
"""What only one container has: its ID, whether it is a sandbox, whether it existed before its node was watched, and its
pod's name and UID."""


class Announced:
    """A container of a node."""

    __slots__ = ("_own", "shared", "uses")

    def __init__(self, own: bytes | memoryview, shared: SharedNames | None = None) -> None:
        """`own`: what `packed` gave, whatever follows it."""
        self._own = own
        self.shared = shared
        """None: it has only an ID yet"""
        self.uses = 0
        """its cgroups"""

    @property
    def id(self) -> Packed:
        id: Packed = marshal.loads(self._own)[0]
        return id

    @property
    def own(self) -> OwnNames:
        """Its own names; it has them."""
        own: OwnNames = marshal.loads(self._own)
        return own

    @property
    def packed(self) -> bytes:
        """Its own names or its ID, as the constructor takes them."""
        return bytes(self._own)

    def name(self, own: OwnNames, shared: SharedNames) -> None:
        """Takes its names."""
        self._own, self.shared = marshal.dumps(own), shared


def announced(id: Packed) -> Announced:
    """A container without names."""
    return Announced(marshal.dumps((id,)))


class AnnouncedOwners:
    """The containers of cgroups; None: the host. A dictionary, or once it is packed, until its next change, arrays that
    are sorted by cgroup. Numbers that do not fit into 64 bits without a sign keep it from being packed."""

    __slots__ = ("_cgroups", "_own", "_shared", "_starts", "_unpacked")

    def __init__(self) -> None:
        self._unpacked: dict[int, Announced | None] | None = {}
        self._clear()

    def _clear(self) -> None:
        self._cgroups, self._starts, self._own = array("Q"), array("i"), b""
        self._shared: tuple[SharedNames | None, ...] = ()

    def __len__(self) -> int:
        return len(self._cgroups if self._unpacked is None else self._unpacked)

    def __contains__(self, cgroup: int) -> bool:
        if self._unpacked is not None:
            return cgroup in self._unpacked
        place = bisect_left(self._cgroups, cgroup)
        return place < len(self._cgroups) and self._cgroups[place] == cgroup

    def __getitem__(self, cgroup: int) -> Announced | None:
        """The owner of a cgroup that it contains. The trap: a new object at each call while it is packed."""
        return self._at(bisect_left(self._cgroups, cgroup)) if self._unpacked is None else self._unpacked[cgroup]

    def values(self) -> Iterator[Announced | None]:
        """The owner of each cgroup, in any order, as by __getitem__."""
        return map(self._at, range(len(self._cgroups))) if self._unpacked is None else iter(self._unpacked.values())

    def _at(self, place: int) -> Announced | None:
        start = self._starts[place]
        return None if start == _HOST else Announced(memoryview(self._own)[start:], self._shared[place])

    def pack(self) -> None:
        """Packs it until the next call of `unpack`."""
        if not self._unpacked or min(self._unpacked) < 0 or max(self._unpacked) >= 1 << 64:
            return
        cgroups = sorted(self._unpacked)
        owners = [self._unpacked[cgroup] for cgroup in cgroups]
        starts: dict[Announced | None, int] = {None: _HOST}
        pieces, size = list[bytes](), 0
        for owner in owners:
            if owner not in starts and owner is not None:
                starts[owner] = size
                pieces.append(piece := owner.packed)
                size += len(piece)
        self._cgroups, self._starts = array("Q", cgroups), array("i", [starts[owner] for owner in owners])
        self._shared = tuple([None if owner is None else owner.shared for owner in owners])
        self._own, self._unpacked = b"".join(pieces), None

    def unpack(self) -> dict[int, Announced | None]:
        """The dictionary, for changes."""
        if self._unpacked is None:
            starts = sorted({*self._starts, len(self._own)} - {_HOST})
            pieces = {start: self._own[start:end] for start, end in pairwise(starts)}
            owners = {start: Announced(piece) for start, piece in pieces.items()}
            self._unpacked = {}
            for cgroup, start, shared in zip(self._cgroups, self._starts, self._shared, strict=True):
                owner = self._unpacked[cgroup] = owners.get(start)
                if owner is not None:
                    owner.shared = shared
                    owner.uses += 1
            self._clear()
        return self._unpacked
