"""Kernel memory of policies, as bench/policies.py reports it."""

import pytest

from bench.policies import held

pytestmark = pytest.mark.bpf


def test_a_hundred_policies_take_hardly_more_kernel_memory_than_one() -> None:
    (one, _), (hundred, _) = held(1), held(100)
    # A megabyte of it is gadget_moved, the processes that left their containers, and 89 KiB each are two tables of
    # processes of the runtime, of which a session has one. 95 KB are the other maps of the object that follows
    # containers.
    assert 2 << 20 < one < 14 << 18
    assert 0 < hundred - one < 1 << 20
