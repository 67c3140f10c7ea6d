"""Groups rows of words that are equal, by a sort of their hashes. The trap: different rows may have one hash."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_MIXERS = tuple(np.uint64(number) for number in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9))


class EqualRows(NamedTuple):
    """Rows of words in an order in which equal ones follow each other. Groups are in the order of their first rows, and
    the rows of a group as they were before."""

    order: npt.NDArray[np.intp]
    starts: npt.NDArray[np.intp]
    """where each group of equal rows begins in this order"""
    number: npt.NDArray[np.intp]
    """the number of each row's group; rows are not in this order here"""
    is_mixed: bool
    """some groups have different rows, by chance"""


def equal_rows(words: npt.NDArray[np.uint64]) -> EqualRows:
    """Groups equal rows, by their hashes."""
    hashes = np.zeros(len(words), np.uint64)
    for place in range(words.shape[1]):
        hashes = (hashes ^ words[:, place]) * _MIXERS[place % len(_MIXERS)]
        hashes ^= hashes >> np.uint64(29)
    # Numbers are sorted faster than their places: the low bits of a hash give way to the place.
    bits = np.uint64(len(words).bit_length())
    places = (np.uint64(1) << bits) - np.uint64(1)
    hashes = (hashes & ~places) | np.arange(len(words), dtype=np.uint64)
    hashes.sort()
    order = (hashes & places).astype(np.intp)
    hashes >>= bits
    is_first = np.ones(len(words), np.bool_)
    is_first[1:] = hashes[1:] != hashes[:-1]
    starts, hashed = np.flatnonzero(is_first), np.cumsum(is_first) - 1
    firsts = order[starts]
    begins = np.zeros(len(words), np.intp)
    begins[firsts] = np.diff(starts, append=len(words))
    ranks = (np.cumsum(begins != 0) - 1)[firsts]
    sizes = begins[begins != 0]
    sorted_starts = np.cumsum(sizes) - sizes
    number, sorted_order = np.empty(len(words), np.intp), np.empty(len(words), np.intp)
    number[order] = ranks[hashed]
    sorted_order[np.arange(len(words)) + (sorted_starts[ranks] - starts)[hashed]] = order
    is_mixed = bool((words != words.take(sorted_order[sorted_starts][number], axis=0)).any())
    return EqualRows(sorted_order, sorted_starts, number, is_mixed)
