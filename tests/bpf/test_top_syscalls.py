"""top syscalls: calls are counted, and none is lost when sums are taken."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bpf import deeds
from tests.bpf.answers import Answers
from tests.bpf.test_profile_syscall import exec_by_a_thread

pytestmark = pytest.mark.bpf
TIMES, FAILING = 20_011, 6_007
WORKERS = 3
CALL = 147 if deeds.X86 else 126
"""sched_get_priority_min, which no other program calls while we count"""
FIFO, NONSENSE = 1, 99


def begin(deed: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        deed()
        os._exit(0)
    return pid


def call_often() -> None:
    for turn in range(TIMES):
        deeds.syscall(CALL, NONSENSE if turn < FAILING else FIFO)


def test_no_call_is_lost_while_sums_are_taken_under_load() -> None:
    taken: list[dict[str, Any]] = []
    takes = rounds = 0
    with Answers("top_syscalls", syscalls="sched_get_priority_min") as top:
        # A fast machine is done before many sums were taken, so it works as often as that needs.
        while takes <= 10:
            rounds += 1
            working = {begin(call_often) for _ in range(WORKERS)}
            while working:
                taken += top.take()
                takes += 1
                if done := os.waitpid(-1, os.WNOHANG)[0]:
                    working.remove(done)
        taken += top.take()
        lost = top.lost
    assert sum(record["count"] for record in taken) == rounds * WORKERS * TIMES
    assert sum(record["errors"] for record in taken) == rounds * WORKERS * FAILING
    assert sum(record["timed"] for record in taken) == rounds * WORKERS * TIMES
    assert {record["syscall"] for record in taken} == {CALL}
    assert lost == 0


def test_time_is_that_between_entry_and_return() -> None:
    with Answers("top_syscalls", syscalls="sched_get_priority_min") as top:
        deeds.syscall(CALL, FIFO)
        (record,) = top.take()
    assert 0 < record["total"] < 60_000_000_000

    with Answers("top_syscalls") as top:
        pid, code = deeds.in_child(lambda: time.sleep(0.11))
        records = top.take()
    assert pid
    assert code == 0
    assert [record for record in records if record["total"] >= 110_000_000], "a sleep takes its time"


def test_an_interval_is_as_long_as_the_time_between_two_takes() -> None:
    with Answers("top_syscalls", syscalls="sched_get_priority_min") as top:
        top.take()
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        deeds.syscall(CALL, FIFO)
        (record,) = top.take()
        after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert before <= record["timestamp"] <= after
    assert record["interval"] > 0


def test_what_was_taken_is_not_there_again() -> None:
    with Answers("top_syscalls", syscalls="sched_get_priority_min") as top:
        for _ in range(7):
            deeds.syscall(CALL, FIFO)
        assert [record["count"] for record in top.take()] == [7]
        assert top.take() == []
        assert top.take() == []
        for _ in range(5):
            deeds.syscall(CALL, FIFO)
        assert [record["count"] for record in top.take()] == [5]


def test_only_the_process_asked_for_counts() -> None:
    with Answers("top_syscalls", syscalls="sched_get_priority_min", pid=os.getpid()) as top:
        deeds.syscall(CALL, FIFO)
        deeds.in_child(lambda: deeds.syscall(CALL, FIFO))
        assert [record["count"] for record in top.take()] == [1]


def test_calls_that_begin_count_though_they_never_return() -> None:
    def deed() -> None:
        for _ in range(7):
            deeds.syscall(CALL, FIFO)

    exit_group = 231 if deeds.X86 else 94
    with Answers("top_syscalls", begun=True) as top:
        for _ in range(11):
            os.waitpid(begin(deed), 0)
        records = top.take()
    counts = {record["syscall"]: record for record in records}
    assert counts[CALL]["count"] == 7 * 11
    # Other processes of this machine end as well, in cgroups of their own.
    assert sum(record["count"] for record in records if record["syscall"] == exit_group) >= 11
    assert (counts[CALL]["errors"], counts[CALL]["timed"], counts[CALL]["total"]) == (0, 0, 0)


def test_the_name_of_the_runtime_hides_no_calls() -> None:
    def deed(name: str) -> None:
        with open("/proc/self/comm", "w") as comm:
            comm.write(name)
        for _ in range(13):
            deeds.syscall(CALL, FIFO)

    with Answers("top_syscalls", begun=True, syscalls="sched_get_priority_min") as top:
        for name in ("runc:[2:INIT]", "runc:", "xrunc:["):
            os.waitpid(begin(lambda name=name: deed(name)), 0)  # type: ignore[misc]
        assert [record["count"] for record in top.take()] == [3 * 13]


@pytest.mark.skipif(not deeds.X86, reason="the programs that it makes are for x86-64")
def test_calls_of_32_bit_programs_have_a_mark(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(deeds.i386_program([(20,)] * 5))
    program.chmod(0o700)
    with Answers("top_syscalls", begun=True) as top:
        pid = begin(lambda: os.execv(program, [str(program)]))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (0, 8), "this kernel runs no 32-bit programs"
        records = {record["syscall"]: record["count"] for record in top.take()}
    # getpid is 20 there, and exit is 1.
    assert records[1 << 29 | 20] == 5
    assert records[1 << 29 | 1] == 1


def test_an_exec_by_another_thread_than_the_first_has_its_time() -> None:
    with Answers("top_syscalls", syscalls="execve") as top:
        for _ in range(7):
            deeds.in_child(exec_by_a_thread)
        records = top.take()
    assert sum(record["count"] for record in records) >= 7
    assert sum(record["timed"] for record in records) == sum(record["count"] for record in records)
