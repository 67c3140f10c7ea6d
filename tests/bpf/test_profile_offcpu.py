"""profile offcpu: a program that sleeps a prime number of times in a known chain of functions."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.burners import WAYS, compile_burner
from tests.bpf.stacks import StackAnswers

pytestmark = pytest.mark.bpf

TIMES = 13
NAP_NS = 20_000_000


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Sleeps when it has read a byte, writes one, and ends with the next."""
    command = [str(compile_burner(tmp_path / "burner", *WAYS["static"])), str(TIMES)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def profile(process: subprocess.Popen[bytes], **options: Any) -> list[dict[str, Any]]:
    """The rows of the sleeps; the process still waits when this returns."""
    assert process.stdin
    assert process.stdout
    with StackAnswers("profile_offcpu", pid=process.pid, **options) as answers:
        process.stdin.write(b"x")
        process.stdin.flush()
        process.stdout.read(1)
        records = answers.take()
        assert answers.lost == 0
    return records


def naps(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record for record in records if record["user_stack"][:1] == ["nap"]]


def test_each_sleep_counts_with_its_time_and_its_calls(sleeper: subprocess.Popen[bytes]) -> None:
    (record,) = naps(profile(sleeper))
    assert record["waits"] == TIMES
    assert TIMES * NAP_NS <= record["blocked"] < TIMES * NAP_NS * 100
    assert record["user_stack"][:3] == ["nap", "waits", "main"]
    assert record["state"] == "interruptible"
    assert record["pid"] == sleeper.pid
    assert record["kernel_stack"][0] in ("do_nanosleep", "hrtimer_nanosleep")
    assert not any("bpf" in name or "sched_switch" in name for name in record["kernel_stack"])


def test_shorter_waits_are_left_out_and_so_are_other_states(sleeper: subprocess.Popen[bytes]) -> None:
    records = profile(sleeper, min_block=10**9)
    assert naps(records) == []


def test_a_state_may_be_asked_for(sleeper: subprocess.Popen[bytes]) -> None:
    records = profile(sleeper, state="uninterruptible")
    assert naps(records) == []
    assert {record["state"] for record in records} <= {"uninterruptible"}


def test_a_thread_that_is_pushed_off_the_cpu_counts_on_request(tmp_path: Path) -> None:
    """Two processes that burn on one CPU push each other off it."""
    cpu = next(iter(os.sched_getaffinity(0)))
    program = str(compile_burner(tmp_path / "burner"))
    burners = [subprocess.Popen(["taskset", "-c", str(cpu), program]) for _ in range(2)]
    try:
        with StackAnswers("profile_offcpu", pid=burners[0].pid, preempted=True, state="preempted") as answers:
            records: list[dict[str, Any]] = []
            while sum(record["waits"] for record in records) < 5:
                answers.watch(0.2)
                records += answers.take()
        assert {record["state"] for record in records} == {"preempted"}
        with StackAnswers("profile_offcpu", pid=burners[0].pid) as answers:
            answers.watch(0.5)
            assert not any(record["state"] == "preempted" for record in answers.take())
    finally:
        for process in burners:
            process.kill()
            process.wait()
