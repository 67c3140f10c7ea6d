"""A mapping from numbers that takes a quarter of a dictionary's memory as long as it does not change."""

from array import array
from bisect import bisect_left
from collections.abc import Collection
from typing import Generic, TypeVar

T = TypeVar("T")


class PackedMapping(Generic[T]):
    """A dictionary, or once it is packed, until its next change, a sorted array of its keys and a list of its values.
    Keys that do not fit into 64 bits without a sign keep it from being packed."""

    __slots__ = ("_keys", "_unpacked", "_values")

    def __init__(self) -> None:
        self._unpacked: dict[int, T] | None = {}
        self._keys = array("Q")
        self._values: list[T] = []

    def __len__(self) -> int:
        return len(self._keys if self._unpacked is None else self._unpacked)

    def __contains__(self, key: int) -> bool:
        if self._unpacked is not None:
            return key in self._unpacked
        place = bisect_left(self._keys, key)
        return place < len(self._keys) and self._keys[place] == key

    def __getitem__(self, key: int) -> T:
        """The value of a key that it contains."""
        return self._values[bisect_left(self._keys, key)] if self._unpacked is None else self._unpacked[key]

    def values(self) -> Collection[T]:
        """All values, in any order."""
        return self._values if self._unpacked is None else self._unpacked.values()

    def pack(self) -> None:
        """Packs it until the next call of `unpack`."""
        if self._unpacked and min(self._unpacked) >= 0 and max(self._unpacked) < 1 << 64:
            self._keys = array("Q", sorted(self._unpacked))
            self._values = [self._unpacked[key] for key in self._keys]
            self._unpacked = None

    def unpack(self) -> dict[int, T]:
        """The dictionary, for changes."""
        if self._unpacked is None:
            self._unpacked = dict(zip(self._keys, self._values, strict=True))
            self._keys, self._values = array("Q"), []
        return self._unpacked
