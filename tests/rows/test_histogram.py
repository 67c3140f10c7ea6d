"""Buckets and percentiles of histograms, against the values themselves."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from kubectl_gadget.rows.histogram import (
    OCTAVES,
    STARTS,
    Buckets,
    octave_bounds,
    octaves,
    percentiles,
    read_buckets,
    spark_line,
)

DURATIONS = some.lists(some.integers(0, 2**42), min_size=1, max_size=50)


def counted(values: list[int]) -> np.ndarray:  # type: ignore[type-arg]
    counts = np.zeros((1, len(STARTS)), np.uint64)
    for value in values:
        counts[0, np.searchsorted(np.array(STARTS), value, side="right") - 1] += np.uint64(1)
    return counts


def test_buckets_are_an_eighth_of_a_power_of_two_and_begin_with_8_ns() -> None:
    assert len(STARTS) == 281
    assert STARTS[:10] == [0, 8, 16, 24, 32, 40, 48, 56, 64, 72]
    assert STARTS[-2:] == [(1 << 40) - (1 << 36), 1 << 40]
    for start, end in itertools.pairwise(STARTS):
        assert end - start == 8 or (end - start) * 8 <= start


@given(DURATIONS, some.sampled_from([50, 90, 99]))
def test_a_percentile_is_off_by_less_than_an_eighth_or_8_ns(values: list[int], percent: int) -> None:
    exact = sorted(values)[math.ceil(len(values) * percent / 100) - 1]
    (found,) = percentiles(counted(values), np.array([max(values)], np.uint64), percent).tolist()
    if exact < 1 << 40:
        assert abs(found - exact) <= max(8, exact / 8)
    assert found <= max(values)


def test_percentiles_of_sums_are_those_of_all_values() -> None:
    one, other = [100] * 99, [1_000_000] * 101
    both = counted(one) + counted(other)
    (found,) = percentiles(both, np.array([1_000_000], np.uint64), 50).tolist()
    assert found == pytest.approx(1_000_000, rel=1 / 8)


def test_an_empty_histogram_has_no_percentiles() -> None:
    assert percentiles(counted([]), np.zeros(1, np.uint64), 99).tolist() == [0]


@given(DURATIONS)
def test_json_has_all_counts_and_is_read_again(values: list[int]) -> None:
    counts = counted(values)
    (buckets,) = Buckets(counts).values()
    assert sum(bucket["count"] for bucket in buckets) == len(values)
    assert read_buckets(buckets).tolist() == counts[0].tolist()


def test_octaves_are_powers_of_two_with_open_ends() -> None:
    counts = octaves(counted([0, 63, 64, 127, 128, 2**40, 2**41])[0])
    assert len(counts) == OCTAVES
    assert [int(counts[place]) for place in (0, 1, 2, OCTAVES - 1)] == [2, 2, 1, 2]
    assert [octave_bounds(place) for place in (0, 1, OCTAVES - 1)] == [(0, 64), (64, 128), (1 << 40, None)]


def test_a_line_has_one_cell_for_each_factor_of_4_and_none_is_lost() -> None:
    line = spark_line(counted([1, *[1000] * 100, 2**41])[0])
    assert len(line) == 19
    assert line == "▁ █" + " " * 15 + "▁"
