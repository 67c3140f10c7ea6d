"""Objects without compare-and-swap, for kernels before Linux 5.12."""

import os

import pytest

from kubectl_gadget.agent.kernel.old_instructions import without_compare_and_swap
from kubectl_gadget.gadgets.load import object_bytes
from tests.bpf import deeds
from tests.bpf.answers import Answers
from tests.bpf.test_profile_syscall import CALL, FIFO

MACHINE = os.uname().machine


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_compare_and_swap_becomes_a_store_and_nothing_else_changes(machine: str) -> None:
    elf = object_bytes("profile_syscall", machine)
    changed = without_compare_and_swap(elf)
    differing = [at for at, (old, new) in enumerate(zip(elf, changed, strict=True)) if old != new]
    assert differing
    assert {(elf[at], changed[at]) for at in differing} == {(0xDB, 0x7B), (0xF1, 0)}
    assert without_compare_and_swap(changed) == changed


@pytest.mark.bpf
def test_a_histogram_has_its_maximum() -> None:
    profile = Answers("profile_syscall", pid=os.getpid())
    profile._elf = without_compare_and_swap(profile._elf)
    with profile:
        for _ in range(1009):
            deeds.syscall(CALL, FIFO)
        records = profile.take()
    (record,) = [record for record in records if record["syscall"] == CALL]
    assert record["count"] == sum(record["buckets"]) == 1009
    assert 0 < record["max"] <= record["total"]
    assert record["total"] <= 1009 * record["max"]
