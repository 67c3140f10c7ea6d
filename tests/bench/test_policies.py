"""Kernel memory of policies, as bench/policies.py reports it."""

import pytest

from bench.policies import kernel_bytes, policies
from tests.bpf.policy_engine import Enforcer

pytestmark = pytest.mark.bpf


def held(count: int) -> int:
    """Bytes with that many policies."""
    before = kernel_bytes()
    with Enforcer(*policies(count)):
        return kernel_bytes() - before


def test_a_hundred_policies_take_hardly_more_kernel_memory_than_one() -> None:
    one = held(1)
    assert 1 << 20 < one < 2 << 20
    assert 0 < held(100) - one < 1 << 20
