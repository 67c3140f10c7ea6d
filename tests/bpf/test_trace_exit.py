"""trace exit: processes that end in known ways, a prime number of times."""

import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.bpf import deeds
from tests.bpf.tracer import Tracer, kept

pytestmark = pytest.mark.bpf
TIMES = 31
EXIT = 60 if deeds.X86 else 93
"""Of one thread."""


def of_children(tracer: Tracer) -> list[dict[str, Any]]:
    return [record for record in tracer.records() if record["ppid"] == os.getpid()]


def die(number: int) -> Callable[[], None]:
    def deed() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(number, signal.SIG_DFL) if number != signal.SIGKILL else None
        os.kill(os.getpid(), number)

    return deed


def test_each_process_is_seen_once_with_its_code() -> None:
    tracer = kept("trace_exit")
    lost = tracer.lost
    pids = []
    for code in range(TIMES):
        pid = os.fork()
        if pid == 0:
            os._exit(code)
        os.waitpid(pid, 0)
        pids.append(pid)
    records = of_children(tracer)
    assert [record["pid"] for record in records] == pids
    assert [record["code"] for record in records] == list(range(TIMES))
    assert {(record["signal"], record["core_dumped"]) for record in records} == {(0, 0)}
    assert tracer.lost == lost


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_process_that_a_signal_ends_has_no_code(number: int) -> None:
    tracer = kept("trace_exit")
    pid, code = deeds.in_child(die(number))
    (record,) = of_children(tracer)
    assert code == -number
    assert (record["pid"], record["code"], record["signal"]) == (pid, -1, number)


def test_a_process_with_threads_is_seen_once_when_the_last_one_ends() -> None:
    def deed() -> None:
        threads = [threading.Thread(target=lambda: None) for _ in range(TIMES)]

        def last() -> None:
            for thread in threads:
                thread.start()
                thread.join()
            os._exit(5)

        threading.Thread(target=last).start()
        # Only the first thread.
        deeds.syscall(EXIT, 3)

    tracer = kept("trace_exit")
    pid = os.fork()
    if pid == 0:
        deed()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    (record,) = of_children(tracer)
    assert (record["pid"], record["code"], record["signal"]) == (pid, 5, 0)


def test_run_time_and_memory_are_those_of_the_process() -> None:
    def deed() -> None:
        memory = bytearray(64 << 20)
        memory[::4096] = b"x" * len(memory[::4096])
        time.sleep(0.1)

    tracer = kept("trace_exit")
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    deeds.in_child(deed)
    took = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - before
    (record,) = of_children(tracer)
    assert 100_000_000 <= record["run_time"] <= took
    assert 64 << 20 <= record["max_rss"] < 4 << 30


def test_failed_drops_what_ends_well_in_the_kernel() -> None:
    with Tracer("trace_exit", failed=True) as tracer:
        deeds.in_child(lambda: None)
        deeds.in_child(die(signal.SIGKILL))
        failing, _ = deeds.in_child(lambda: os._exit(3))
        records = of_children(tracer)
    assert [(record["code"], record["signal"]) for record in records] == [(-1, 9), (3, 0)]
    assert records[1]["pid"] == failing


def test_only_the_signal_asked_for_is_sent() -> None:
    with Tracer("trace_exit", signal=int(signal.SIGTERM)) as tracer:
        for number in (signal.SIGKILL, signal.SIGTERM):
            deeds.in_child(die(number))
        deeds.in_child(lambda: os._exit(signal.SIGTERM))
        records = tracer.records()
    assert [record["signal"] for record in records] == [signal.SIGTERM]
