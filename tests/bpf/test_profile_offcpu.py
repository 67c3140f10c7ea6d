"""profile offcpu: a program that sleeps a prime number of times in a known chain of functions."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.burners import PROGRAMS, WAYS, compile_burner, compile_c
from tests.bpf.stacks import StackAnswers
from tests.bpf.tracer import MACHINE
from tests.waiting import wait_until

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


def state_of(process: subprocess.Popen[bytes]) -> str:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def sleeps(process: subprocess.Popen[bytes]) -> bool:
    return state_of(process) == "S"


def test_a_thread_that_waits_all_the_time_is_seen_in_each_interval(sleeper: subprocess.Popen[bytes]) -> None:
    """It blocks before the profile, and does not run until its end."""
    wait_until(lambda: sleeps(sleeper))
    time.sleep(0.3)
    with StackAnswers("profile_offcpu", pid=sleeper.pid) as answers:
        answers.watch(0.1)
        first = answers.take()
        answers.watch(0.1)
        second = answers.take()
    for record in (*first, *second):
        assert record["still_waiting"]
        assert record["waits"] == 1
        assert record["state"] == "interruptible"
        assert record["user_stack"]
        assert any("read" in name for name in record["kernel_stack"])
        assert record["blocked"] >= 90_000_000
    (one,), (other,) = first, second
    # The scheduler counts the time that it ran at each tick only, so some milliseconds may be missing.
    assert one["waiting"] >= one["blocked"] + 250_000_000
    assert other["waiting"] == one["waiting"] + other["blocked"]


def test_a_wait_that_began_before_counts_from_the_start_of_the_profile(sleeper: subprocess.Popen[bytes]) -> None:
    """The sleeper is given its byte after the profile has begun; at the end it waits for the next one."""
    wait_until(lambda: sleeps(sleeper))
    time.sleep(0.3)
    rows = [record for record in profile(sleeper) if "nap" not in record["user_stack"]]
    ended = [record for record in rows if not record["still_waiting"]]
    for record in ended:
        assert record["waiting"] == 2**64 - 1
        assert record["blocked"] < 250_000_000
    assert sum(record["waits"] for record in rows) >= 1


def test_a_wait_that_is_open_at_the_end_is_marked(sleeper: subprocess.Popen[bytes]) -> None:
    assert sleeper.stdin
    assert sleeper.stdout
    with StackAnswers("profile_offcpu", pid=sleeper.pid) as answers:
        sleeper.stdin.write(b"x")
        sleeper.stdin.flush()
        sleeper.stdout.read(1)
        wait_until(lambda: sleeps(sleeper))
        answers.watch(0.1)
        rows = answers.take()
    (record,) = [record for record in rows if record["still_waiting"]]
    assert record["user_stack"]
    assert "nap" not in record["user_stack"]
    assert record["waits"] == 1
    assert 90_000_000 <= record["blocked"] == record["waiting"] < record["interval"]
    assert not naps(rows)[0]["still_waiting"]


def test_a_wait_from_before_has_the_whole_stack_of_its_program(tmp_path: Path) -> None:
    """The kernel does not unwind other processes, so the gadget does."""
    command = [str(compile_burner(tmp_path / "burner", *WAYS["static"])), "1000000"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin
        process.stdin.write(b"x")
        process.stdin.flush()
        wait_until(lambda: stops_in_nanosleep(process))
        with StackAnswers("profile_offcpu", pid=process.pid) as answers:
            answers.watch(0.1)
            (record,) = answers.take()
        process.kill()
    assert record["user_stack"][:3] == ["nap", "waits", "main"]
    assert record["state"] == "stopped"
    assert record["still_waiting"]


def stops_in_nanosleep(process: subprocess.Popen[bytes]) -> bool:
    """Stop the process; let it go on if that was not in its call."""
    process.send_signal(signal.SIGSTOP)
    wait_until(lambda: state_of(process) == "T")
    if Path(f"/proc/{process.pid}/syscall").read_text().split()[0] in ("35", "101"):
        return True
    process.send_signal(signal.SIGCONT)
    return False


def test_without_sleepable_iterators_the_kernel_stack_is_known(sleeper: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: sleeps(sleeper))
    with StackAnswers("profile_offcpu", ("switches", "waiting_alone", "sum_open"), pid=sleeper.pid) as answers:
        answers.watch(0.1)
        (record,) = answers.take()
    assert record["still_waiting"]
    assert record["user_stack"] == []
    assert any("read" in name for name in record["kernel_stack"])


def test_open_waits_shorter_than_asked_for_are_left_out(sleeper: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: sleeps(sleeper))
    with StackAnswers("profile_offcpu", pid=sleeper.pid, min_block=10**9) as answers:
        answers.watch(0.05)
        assert answers.take() == []


def reads_its_input(process: subprocess.Popen[bytes]) -> bool:
    return Path(f"/proc/{process.pid}/syscall").read_text().split()[:2] == ["0", "0x0"]


@pytest.mark.skipif(MACHINE != "x86_64", reason="only x86-64 is unwound")
@pytest.mark.parametrize("options", ["-O0", "-O2", "-O2 -static"])
def test_stacks_of_sleeps_without_frame_pointers_are_whole(tmp_path: Path, options: str) -> None:
    """The sleep is a function of libc, which has no frame pointers either."""
    source = PROGRAMS / "unwound.c"
    path = compile_c(tmp_path / "unwound", source, "-fomit-frame-pointer", *options.split())
    with subprocess.Popen([path, "sleeps"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        with StackAnswers("profile_offcpu", pid=process.pid) as answers:
            if "unwound_switches" not in answers.object.chosen:
                pytest.skip("this kernel cannot unwind")
            wait_until(lambda: reads_its_input(process))  # then its libraries are mapped
            answers.expect(process.pid)
            process.stdin.write(b"x")
            process.stdin.flush()
            process.stdout.read(1)
            found = [record for record in answers.take() if "nap" in record["user_stack"]]
            assert answers.lost == 0
        process.kill()
    # A thread that is pushed off the CPU just before it sleeps may find that its time is over.
    assert 9 <= sum(record["waits"] for record in found) <= 17
    for record in found:
        stack = record["user_stack"]
        assert stack[stack.index("nap") :][:5] == ["nap", "third", "second", "first", "main"]
        assert stack[-1] == "_start"
