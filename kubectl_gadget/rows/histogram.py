"""Histograms counted by BPF programs (bpf/include/gadget/histogram.h): bucket bounds, percentiles, values.

Each power of two is divided into 8 buckets of equal width, so the error of a percentile is less than an eighth of its
value, and less than 8 ns below 64 ns. Percentiles cannot be added up, so they are computed after the buckets
of all nodes have been added.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kubectl_gadget.rows.vectors import Pieces, Type, Vector

Counts = npt.NDArray[np.uint64]

BUCKETS_TYPE = "gadget_buckets"
"""The typedef of the buckets in a record."""
_PARTS = 8
_LINEAR_END, _LAST = 64, 1 << 40
_LOWEST_BIT, _HIGHEST_BIT = 6, 40
OCTAVES = 1 + _HIGHEST_BIT - _LOWEST_BIT + 1
"""One below 64 ns, one per power of two, and one above them all."""
_BARS = "▁▂▃▄▅▆▇█"


def _starts() -> list[int]:
    linear = list(range(0, _LINEAR_END, _LINEAR_END // _PARTS))
    parts = [(1 << bit) + part * (1 << bit) // _PARTS for bit in range(_LOWEST_BIT, _HIGHEST_BIT) for part in range(8)]
    return [*linear, *parts, _LAST]


STARTS: Sequence[int] = _starts()
"""Lower bound of each bucket, in ns. Its upper bound is the next bucket's lower bound; the last bucket has none."""
_PLACES = {start: place for place, start in enumerate(STARTS)}


def percentiles(buckets: Counts, maxima: Counts, percent: int) -> Counts:
    """The given percentile of each row, in ns. `buckets` has one histogram per row.

    Uses the nearest-rank method and takes values as evenly spread over their bucket; 0 for an empty histogram.
    """
    counts = buckets.sum(axis=1, dtype=np.uint64)
    ranks = (counts * np.uint64(percent) + np.uint64(99)) // np.uint64(100)
    sums = buckets.cumsum(axis=1, dtype=np.uint64)
    places = (sums < ranks[:, None]).sum(axis=1).clip(max=len(STARTS) - 1)
    starts = np.array(STARTS, np.float64)
    ends = np.maximum(np.append(starts[1:], 0), 0)
    rows = np.arange(len(buckets))
    inside = np.maximum(buckets[rows, places], np.uint64(1))
    before = sums[rows, places] - buckets[rows, places]
    share = ((ranks - np.minimum(before, ranks)).astype(np.float64) - 0.5).clip(min=0) / inside.astype(np.float64)
    low = starts[places]
    high = np.where(places == len(STARTS) - 1, maxima.astype(np.float64), ends[places])
    found = (low + share * (high - low)).astype(np.uint64)
    return np.where(counts == 0, np.uint64(0), np.minimum(found, maxima))


def octaves(buckets: Counts) -> Counts:
    """One row's counts: below 64 ns, for each power of two from there on, and above them all."""
    inner = buckets[:-1].reshape(-1, _PARTS).sum(axis=1)
    return np.append(inner, buckets[-1])


def octave_bounds(octave: int) -> tuple[int, int | None]:
    """Lower and upper bound of an octave, in ns; None: no upper bound."""
    start = 0 if octave == 0 else 1 << (octave + _LOWEST_BIT - 1)
    return start, None if octave == OCTAVES - 1 else 1 << (octave + _LOWEST_BIT)


def spark_line(buckets: Counts) -> str:
    """One row as a line of 19 cells of two octaves each, so that lines of all tables can be compared."""
    counts = np.append(octaves(buckets), np.uint64(0))
    cells = [int(counts[0]), *(counts[1:].reshape(-1, 2).sum(axis=1)).tolist()]
    highest = max(cells) or 1
    return "".join(_BARS[(cell * len(_BARS) - 1) // highest] if cell else " " for cell in cells)


class Buckets(Vector):
    """The non-empty buckets of each row: their bounds in ns and their counts."""

    type: Type = "buckets"

    def __init__(self, array: Counts) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def values(self) -> list[Any]:
        ends = [*STARTS[1:], None]
        return [
            [
                {"from": STARTS[place], "to": ends[place], "count": int(row[place])}
                for place in np.flatnonzero(row).tolist()
            ]
            for row in self.array
        ]

    def json(self) -> Pieces:
        return "%s", ([json.dumps(row, separators=(",", ":")) for row in self.values()],)


def read_buckets(value: Any) -> Counts:
    """Reads a row's counts from the JSON of Buckets. Raises ValueError, KeyError or TypeError if it is malformed."""
    counts = np.zeros(len(STARTS), np.uint64)
    for item in value:
        counts[_PLACES[item["from"]]] += np.uint64(item["count"])
    return counts
