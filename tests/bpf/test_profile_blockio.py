"""profile blockio: prime numbers of requests to a loop device, each of which is one request to a device."""

from typing import Any

import pytest

from tests.bpf import deeds
from tests.bpf.answers import Answers
from tests.bpf.test_top_blockio import FLUSHES, READS, WRITES, device, flush, on, read_and_write

__all__ = ["device"]
pytestmark = pytest.mark.bpf


def counts(records: list[dict[str, Any]]) -> dict[str, int]:
    return {record["operation"]: record["count"] for record in records}


def test_requests_are_counted_by_operation(device: str) -> None:
    with Answers("profile_blockio") as profile:
        deeds.in_child(lambda: read_and_write(device))
        deeds.in_child(lambda: flush(device))
        records = on(device, profile.take())
        assert profile.lost == 0
    assert counts(records) == {"read": READS, "write": WRITES, "flush": FLUSHES}
    for record in records:
        assert sum(record["buckets"]) == record["count"]
        assert 0 < record["max"] <= record["total"]
        assert record["cgroup"]


def test_only_the_operation_that_was_asked_for_counts_and_waiting_makes_it_longer(device: str) -> None:
    taken = []
    for queue in (False, True):
        with Answers("profile_blockio", operation="write", queue=queue) as profile:
            deeds.in_child(lambda: read_and_write(device))
            taken.append(on(device, profile.take()))
    assert [counts(records) for records in taken] == [{"write": WRITES}] * 2
