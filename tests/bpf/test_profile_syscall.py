"""profile syscall: calls that are counted, each with the time between its entry and its return."""

import os
import threading
import time
from typing import Any

import pytest

from kubectl_gadget.linux import syscalls
from tests.bpf import deeds, map_shares
from tests.bpf.answers import Answers
from tests.bpf.tracer import MACHINE

pytestmark = pytest.mark.bpf
TIMES, SLEEPS = 10_007, 7
CALL = 147 if deeds.X86 else 126
"""sched_get_priority_min"""
FIFO = 1
NAMES = {number: name for number, name in syscalls.syscall_names(MACHINE).items()}


def only(calls: str) -> dict[str, Any]:
    """What the client puts into the table for --syscalls."""
    table = syscalls.kernel_table(MACHINE, syscalls.select(calls))
    return {"variables": {f"syscall_table_{MACHINE}": table}}


def test_each_call_counts_once() -> None:
    with Answers("profile_syscall", pid=os.getpid()) as profile:
        for _ in range(TIMES):
            deeds.syscall(CALL, FIFO)
        records = profile.take()
        assert profile.lost == 0
    (record,) = [record for record in records if record["syscall"] == CALL]
    assert record["count"] == sum(record["buckets"]) == TIMES
    assert 0 < record["max"] <= record["total"] < 60_000_000_000


def test_time_is_that_between_entry_and_return() -> None:
    with Answers("profile_syscall", pid=os.getpid()) as profile:
        for _ in range(SLEEPS):
            time.sleep(0.011)
        records = profile.take()
    (record,) = [record for record in records if "nanosleep" in NAMES.get(record["syscall"], "")]
    assert record["count"] == SLEEPS
    assert record["total"] >= SLEEPS * 11_000_000
    assert record["max"] * SLEEPS >= record["total"]


def test_only_calls_that_were_asked_for_count() -> None:
    with Answers("profile_syscall", pid=os.getpid(), **only("getppid")) as profile:
        for _ in range(13):
            os.getppid()
            deeds.syscall(CALL, FIFO)
        records = profile.take()
    assert [(NAMES[record["syscall"]], record["count"]) for record in records] == [("getppid", 13)]


def test_histograms_of_two_intervals_have_nothing_in_common() -> None:
    with Answers("profile_syscall", pid=os.getpid(), **only("getppid")) as profile:
        for count in (3, 5):
            for _ in range(count):
                os.getppid()
            assert [record["count"] for record in profile.take()] == [count]


def exec_by_a_thread() -> None:
    thread = threading.Thread(target=os.execv, args=("/bin/true", ["true"]))
    thread.start()
    thread.join()


def test_an_exec_by_another_thread_than_the_first_counts() -> None:
    """The thread becomes the first one, so that it returns with another TID."""
    with Answers("profile_syscall", **only("execve")) as profile:
        for _ in range(7):
            deeds.in_child(exec_by_a_thread)
        records = profile.take()
    assert sum(record["count"] for record in records) >= 7


def test_a_container_with_many_threads_leaves_room_for_others_and_its_own_losses_count() -> None:
    def call() -> None:
        deeds.syscall(CALL, FIFO)

    with Answers("profile_syscall", **only("sched_get_priority_min")) as profile:
        map_shares.fill(profile, "gadget_thread_shares", "gadget_thread_states", share=1)
        before = map_shares.entries(profile, "gadget_thread_shares", share=0)
        deeds.in_child(call)
        assert profile.lost == 0
        assert map_shares.entries(profile, "gadget_thread_shares", share=0) == before, "the thread has ended"
        map_shares.fill(profile, "gadget_thread_shares", "gadget_thread_states", share=0)
        deeds.in_child(call)
        assert profile.lost == 1
        assert sum(record["count"] for record in profile.take()) == 1
