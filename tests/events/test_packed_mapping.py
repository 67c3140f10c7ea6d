"""Mappings that are packed until they change."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from kubectl_gadget.events.packed_mapping import PackedMapping


@given(st.dictionaries(st.integers(0, 2**64 - 1), st.integers()), st.integers(0, 2**64))
def test_what_is_packed_has_the_same_keys_and_values(items: dict[int, int], other: int) -> None:
    mapping = PackedMapping[int]()
    mapping.unpack().update(items)
    mapping.pack()
    assert len(mapping) == len(items)
    assert sorted(mapping.values()) == sorted(items.values())
    assert {key: mapping[key] for key in items} == items
    assert all(key in mapping for key in items)
    assert (other in mapping) == (other in items)
    assert mapping.unpack() == items


def test_it_changes_after_it_was_packed() -> None:
    mapping = PackedMapping[str]()
    mapping.unpack()[7] = "a"
    mapping.pack()
    mapping.unpack()[3] = "b"
    del mapping.unpack()[7]
    assert (len(mapping), 7 in mapping, mapping[3]) == (1, False, "b")
    mapping.pack()
    assert (len(mapping), 7 in mapping, mapping[3]) == (1, False, "b")


@pytest.mark.parametrize("key", [-1, 2**64])
def test_a_key_of_more_than_64_bits_is_kept(key: int) -> None:
    mapping = PackedMapping[str]()
    mapping.unpack()[key] = "a"
    mapping.pack()
    assert mapping[key] == "a"
