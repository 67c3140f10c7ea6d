"""Patches between objects: what they make is exact, whatever the two have in common."""

import random

import pytest

from kubectl_gadget.catalogue.object_patches import apply, make

_RANDOM = random.Random(7)
FIRST = _RANDOM.randbytes(5_000)


@pytest.mark.parametrize(
    "second",
    [
        b"",
        FIRST,
        FIRST[:-1],
        FIRST + b"more",
        b"more" + FIRST,
        FIRST[100:3_001] + FIRST[:900] + bytes(1_000) + FIRST[2_000:],
        FIRST[:2_000] + b"replaced" + FIRST[2_008:],
        FIRST[:2_003] + b"inserted" + FIRST[2_003:],
        _RANDOM.randbytes(3_000),
        b"\x95\0\0\0\0\0\0\0" * 700,
    ],
)
def test_a_patch_makes_the_second_of_the_first(second: bytes) -> None:
    for first in (FIRST, b"", b"\x95\0\0\0\0\0\0\0" * 500):
        assert apply(first, make(first, second)) == second


def test_what_is_equal_is_not_in_the_patch() -> None:
    second = FIRST[:2_000] + b"replaced" + FIRST[2_008:3_000] + FIRST[500:1_500]
    assert len(make(FIRST, second)) < 120
