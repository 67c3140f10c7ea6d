"""Patches between objects: what they make is exact, and what is equal takes no place."""

import random

import pytest

from kubectl_gadget.catalogue.object_patches import apply, make

_RANDOM = random.Random(7)
FIRST = _RANDOM.randbytes(3 << 20)


@pytest.mark.parametrize(
    ("second", "size"),
    [
        (b"", 20),
        (FIRST, 500),
        (FIRST[2_000_003:] + b"more" + FIRST[:900_000], 1_000),
        (_RANDOM.randbytes(3_000), 3_050),
    ],
)
def test_a_patch_makes_the_second_of_the_first(second: bytes, size: int) -> None:
    patch = make(FIRST, second)
    assert apply(FIRST, patch) == second
    assert len(patch) < size
