"""Columns of values."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.rows.vectors import different

TYPES = {"i1": (-128, 127), "u1": (0, 255), "i4": (-(2**31), 2**31 - 1), "u4": (0, 2**32 - 1)}
TYPES |= {"i8": (-(2**63), 2**63 - 1), "u8": (0, 2**64 - 1)}


@given(st.data(), st.sampled_from(sorted(TYPES)))
def test_different_numbers_are_those_of_numpy(data: st.DataObject, type: str) -> None:
    low, high = TYPES[type]
    start = data.draw(st.integers(low, high))
    near = st.integers(start, min(high, start + data.draw(st.sampled_from([3, 300, 1 << 40]))))
    numbers = np.array(data.draw(st.lists(near, max_size=40)), type)
    found, places = different(numbers)
    wanted, expected = np.unique(numbers, return_inverse=True)
    assert found.dtype == numbers.dtype
    assert (found.tolist(), places.tolist()) == (wanted.tolist(), expected.tolist())
