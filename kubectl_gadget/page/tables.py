"""Bounded tables of what a run did: a million different files must not take a million entries, and a flood of one
workload must not push out what others did. So each workload has its own share, and a full share puts files of one
directory together. Nothing is left out without being counted."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kubectl_gadget.rows.vectors import Integers, Mask

_MOST_SHARES = 1000
_OTHERS = "other workloads"
_PER_OCTAVE = 4
_MOST_BUCKETS = 64 * _PER_OCTAVE

Key = tuple[str, ...]


def grouped(keys: Sequence[Hashable]) -> tuple[list[Any], Integers]:
    """Return the different keys, and the place of each row's key among them."""
    known: dict[Hashable, int] = {}
    codes = [known.setdefault(key, len(known)) for key in keys]
    return list(known), np.array(codes, np.intp)


@dataclass(slots=True)
class Entry:
    """The totals of one key."""

    count: int = 0
    failed: int = 0
    first_ns: int = 0
    last_ns: int = 0
    sum: int = 0
    """of an amount that some rows have: ns, bytes"""
    amounts: int = 0
    """rows with an amount"""
    most: int = 0

    def add(self, other: "Entry") -> None:
        if not self.count:
            self.first_ns, self.last_ns = other.first_ns, other.last_ns
        self.first_ns, self.last_ns = min(self.first_ns, other.first_ns), max(self.last_ns, other.last_ns)
        self.count += other.count
        self.failed += other.failed
        self.sum += other.sum
        self.amounts += other.amounts
        self.most = max(self.most, other.most)


def entries(
    codes: Integers, number: int, times: Integers, failed: Mask | None = None, amounts: Integers | None = None
) -> list[Entry]:
    """Return an entry for each group of rows. An amount below 0 is none."""
    counts = np.bincount(codes, minlength=number)
    first, last = np.full(number, np.iinfo(np.int64).max), np.zeros(number, np.int64)
    np.minimum.at(first, codes, times)
    np.maximum.at(last, codes, times)
    bad = np.zeros(number, np.int64) if failed is None else np.bincount(codes[failed], minlength=number)
    sums, having, most = (np.zeros(number, np.int64) for _ in range(3))
    if amounts is not None:
        known = amounts >= 0
        np.add.at(sums, codes[known], amounts[known])
        np.maximum.at(most, codes[known], amounts[known])
        having = np.bincount(codes[known], minlength=number)
    columns = (counts, bad, first, last, sums, having, most)
    return [Entry(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


class Table:
    """Entries by workload and key. When a workload has too many, each of `folds` makes one key of several, the next one
    of more; in the end the rest is one entry."""

    def __init__(self, most: int, *folds: Callable[[Key], Key]) -> None:
        """`most` entries of each workload, and half of them again for each fold."""
        self._most = most
        self._folds = folds
        self._shares: dict[str, dict[Key, Entry]] = {}
        self.folded = 0
        """rows whose key was put together with others"""

    def add(self, workload: str, key: Key, entry: Entry) -> None:
        if workload not in self._shares and len(self._shares) >= _MOST_SHARES:
            workload = _OTHERS
        share = self._shares.setdefault(workload, {})
        found = share.get(key)
        if found is None and len(share) >= self._most:
            self.folded += entry.count
            key = self._folded(key, share)
            found = share.get(key)
        if found is None:
            found = share[key] = Entry()
        found.add(entry)

    def _folded(self, key: Key, share: dict[Key, Entry]) -> Key:
        for number, fold in enumerate(self._folds):
            folded = fold(key)
            if folded in share or len(share) < self._most + (number + 1) * self._most // 2:
                return folded
        return ("…",) * len(key)

    @property
    def seen(self) -> int:
        """The number of entries."""
        return sum(map(len, self._shares.values()))

    def top(self, most: int) -> list[tuple[str, Key, Entry]]:
        """Return the first entries: those that failed and then the most frequent. Each workload has at least some of
        its own."""
        least = max(1, most // max(1, len(self._shares)) // 2)
        chosen, rest = [], []
        for workload, share in self._shares.items():
            ranked = sorted(share.items(), key=_rank)
            chosen += [(workload, key, entry) for key, entry in ranked[:least]]
            rest += [(workload, key, entry) for key, entry in ranked[least:]]
        rest.sort(key=lambda item: _rank(item[1:]))
        found = (chosen + rest[: max(0, most - len(chosen))])[:most]
        return sorted(found, key=lambda item: -item[2].count)


def _rank(item: tuple[Key, Entry]) -> tuple[bool, int]:
    return not item[1].failed, -item[1].count


class Histogram:
    """Numbers of values in buckets, four to each power of two."""

    def __init__(self) -> None:
        self.buckets = np.zeros(_MOST_BUCKETS, np.int64)
        self.without = 0
        """rows that have no value, such as questions without an answer"""

    def add(self, values: Integers) -> None:
        """Takes ns. A value below 0 is none."""
        known = values[values >= 0]
        self.without += len(values) - len(known)
        places = np.floor(np.log2(np.maximum(known, 1)) * _PER_OCTAVE).astype(np.int64)
        self.buckets += np.bincount(np.minimum(places, _MOST_BUCKETS - 1), minlength=_MOST_BUCKETS)

    def document(self) -> dict[str, Any] | None:
        """Return the buckets from the first to the last that has values; None: there is no value."""
        used = np.flatnonzero(self.buckets)
        if not len(used):
            return None
        first, last = int(used[0]), int(used[-1])
        total, sums = int(self.buckets.sum()), np.cumsum(self.buckets)
        at = {
            f"p{percent}": self._end(int(np.searchsorted(sums, max(1, -(-total * percent // 100)))))
            for percent in (50, 95, 99)
        }
        return {
            "count": total,
            "without": self.without,
            "begins": [self._end(place - 1) for place in range(first, last + 1)],
            "end": self._end(last),
            "counts": self.buckets[first : last + 1].tolist(),
            **at,
        }

    @staticmethod
    def _end(place: int) -> int:
        return 0 if place < 0 else round(2 ** ((place + 1) / _PER_OCTAVE))
