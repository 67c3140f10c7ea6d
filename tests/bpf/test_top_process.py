"""top process: CPU time that the kernel accounts to a process in other ways, too."""

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.bpf import deeds
from tests.bpf.answers import Answers
from tests.waiting import wait_until

pytestmark = pytest.mark.bpf
ENDED = 0x10 | 0x20 | 0x80
"""EXIT_DEAD, EXIT_ZOMBIE, TASK_DEAD"""


def test_cpu_time_is_what_the_process_used() -> None:
    receive, send = os.pipe()

    def burn() -> None:
        end = time.process_time() + 0.3
        while time.process_time() < end:
            pass
        os.write(send, str(time.process_time_ns()).encode())

    with Answers("top_process") as top:
        pid, code = deeds.in_child(burn)
        records = [record for record in top.take() if record["pid"] == pid]
    used = int(os.read(receive, 64))
    os.close(receive)
    os.close(send)
    assert code == 0
    (record,) = records
    # What it used to fork and to exit is the rest.
    assert used * 0.95 <= record["cpu_time"] <= used + 2_000_000_000
    assert record["ppid"] == os.getpid()
    assert 1 << 20 < record["memory"] < 4 << 30


def until_it_ran(pid: int) -> None:
    """For 50 ms, which on a busy machine may take long."""
    clock = ~pid << 3 | 2  # of the CPU time of a process
    before = time.clock_gettime_ns(clock)
    wait_until(lambda: time.clock_gettime_ns(clock) >= before + 50_000_000)


def test_a_process_that_never_sleeps_is_in_each_interval() -> None:
    pid = os.fork()
    if pid == 0:
        while True:
            pass
    try:
        with Answers("top_process", pid=pid) as top:
            sums = []
            for _ in range(5):
                until_it_ran(pid)
                sums.append(sum(record["cpu_time"] for record in top.take()))
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert all(sums)


def test_a_process_whose_threads_end_is_not_dead() -> None:
    """Each thread that ends has run last, for a moment, while the first one sleeps."""
    pid = os.fork()
    if pid == 0:
        while True:
            ended = threading.Thread(target=sum, args=(range(50_000),))
            ended.start()
            ended.join()
    try:
        with Answers("top_process", pid=pid) as top:
            states = set()
            for _ in range(11):
                until_it_ran(pid)
                states |= {record["state"] & ENDED for record in top.take()}
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert states == {0}


def test_the_last_thread_of_a_process_is_dead() -> None:
    with Answers("top_process") as top:
        pid, _ = deeds.in_child(lambda: None)
        (record,) = [record for record in top.take() if record["pid"] == pid]
    assert record["state"] & ENDED


def test_nice_and_priority_are_those_of_proc() -> None:
    pid = os.fork()
    if pid == 0:
        os.nice(7)
        while True:
            pass
    try:
        with Answers("top_process", pid=pid) as top:
            deadline = time.monotonic() + 60
            while os.getpriority(os.PRIO_PROCESS, pid) != 7:
                assert time.monotonic() < deadline
            top.take()
            records: list[dict[str, Any]] = []
            while not records:
                assert time.monotonic() < deadline
                records = top.take()
            fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert (records[0]["nice"], records[0]["priority"]) == (7, int(fields[15])) == (7, 27)


def test_what_a_process_used_before_an_exec_counts_for_the_program_before() -> None:
    def deed() -> None:
        sum(range(200_000))
        os.execv("/bin/cat", ["cat", "/dev/null"])

    with Answers("top_process") as top:
        pid, code = deeds.in_child(deed)
        records = [record for record in top.take() if record["pid"] == pid]
    assert code == 0
    own = Path("/proc/self/comm").read_text().strip()
    assert sorted(record["comm"] for record in records) == sorted([own, "cat"])
