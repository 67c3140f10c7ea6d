"""Patches between objects: what they make is exact, and what is equal takes no place."""

import random

import pytest

from kubectl_gadget.gadgets.object_patches import apply, make

_RANDOM = random.Random(7)
FIRST = _RANDOM.randbytes(3 << 20)
SMALL = FIRST[: 1 << 18]


@pytest.mark.parametrize(
    ("first", "second", "size"),
    [
        (SMALL, b"", 20),
        (SMALL, SMALL, 500),
        (FIRST, FIRST[2_000_003:] + b"more" + FIRST[:900_000], 1_000),
        (SMALL, _RANDOM.randbytes(3_000), 3_050),
    ],
    ids=["nothing", "the same", "moved far", "other"],
)
def test_a_patch_makes_the_second_of_the_first(first: bytes, second: bytes, size: int) -> None:
    patch = make(first, second)
    assert apply(first, patch) == second
    assert len(patch) < size
