"""top bpf: a prime number of runs of one of our own programs, as the kernel counts them."""

import os

import pytest

from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.gadgets.load import object_bytes
from tests.bpf import deeds
from tests.bpf.answers import Answers
from tests.bpf.test_top_syscalls import CALL, FIFO
from tests.bpf.tracer import MACHINE, Tracer

pytestmark = pytest.mark.bpf
TIMES = 1009
PROGRAM = "locate"
"""A program of bpf/containers.bpf.c that runs on request."""


def test_runs_and_their_time_are_counted_for_the_process_that_holds_the_program() -> None:
    object = BpfObject(object_bytes("containers", MACHINE), "containers", [PROGRAM])
    object.load()
    own = object.id_of(PROGRAM)
    try:
        with Answers("top_bpf") as top:
            for _ in range(TIMES):
                object.run(PROGRAM)
            # By its number: whatever else of this process looks at containers has a program with this name, too.
            (record,), (later,) = ([each for each in top.take() if each["program_id"] == own] for _ in range(2))
    finally:
        object.close()
    assert record["pid"] == os.getpid()
    assert record["program"] == PROGRAM
    assert record["runs"] == TIMES
    assert record["run_time"] > 0
    assert record["comm"] == open("/proc/self/comm").read().strip()
    assert record["uid"] == os.getuid()
    assert record["type"] == 17, "a raw tracepoint"
    assert record["cgroup"]
    assert later["runs"] == 0


def test_programs_of_ours_are_marked_and_say_how_they_are_attached() -> None:
    with Answers("top_bpf") as top, Tracer("top_syscalls", syscalls="sched_get_priority_min"):
        deeds.syscall(CALL, FIFO)
        records = [record for record in top.take() if record["pid"] == os.getpid() and record["ours"] == 1]
    attached = {record["attached"] for record in records}
    assert attached >= {"raw_tracepoint sys_enter", "raw_tracepoint sys_exit"}
    assert all(record["runs"] > 0 for record in records if record["attached"] == "raw_tracepoint sys_exit")
