"""A thread changes what a call's argument points to, between the check and the use of it. Who reads it at the beginning
of the call is lied to; what security hooks are given is what is done.

The trap: whether a call was raced for shows only afterwards, by what two hooks saw of the same call. So calls are made
until enough were lied about, and a machine that never does two things at once says so.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kubectl_gadget.policies.engine.decode import Match
from kubectl_gadget.policies.model import Action, Argument, Filter, Hook, Policy, Selector, Subject, Value
from tests.bpf.policy_engine import Enforcer, in_force
from tests.bpf.tracer import Tracer

pytestmark = pytest.mark.bpf
EACCES = 13
DENY = (Action("Override", error=-EACCES),)
CALLS, WANTED = 500, 1000
"""Calls of a round, and how many of all shall be lied about."""
SECONDS = float(os.environ.get("RACE_SECONDS", "3"))
"""after which it is enough: a virtual machine is slow, and a busy one hardly does two things at once"""
PROCESSES = 50
"""Calls of a round where each needs a process of its own."""
SOURCE = Path(__file__).parent / "programs" / "racer.c"


@pytest.fixture(scope="module")
def racer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, in a folder with two files that it opens and two copies of it that it executes."""
    folder = tmp_path_factory.mktemp("racer")
    subprocess.run(["gcc", "-O2", "-static", "-pthread", "-o", folder / "racer", SOURCE], check=True)
    for digit in "01":
        (folder / f"file{digit}").write_text(digit)
        (folder / f"program{digit}").write_bytes((folder / "racer").read_bytes())
        (folder / f"program{digit}").chmod(0o755)
    return folder / "racer"


def race(racer: Path, mode: str, count: int, harmless: str, real: str) -> tuple[int, list[list[int]]]:
    """The program's pid, and the numbers that it printed."""
    command = [str(racer), mode, str(count), harmless, real]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [[*map(int, line.split())] for line in process.stdout]
    assert process.returncode == 0
    return process.pid, lines


def argument(position: int, test: str, value: Value) -> Filter:
    return Filter(Subject("argument", position), test, (value,))  # type: ignore[arg-type]


def policies(asked: Hook, guard: Hook, real: Filter, any_of_both: Filter) -> tuple[Policy, Policy]:
    """One that reads at the beginning of the system call, and one that denies the real thing at a security hook."""
    selectors = (Selector(filters=(real,), actions=DENY), Selector(filters=(any_of_both,)))
    both = Hook(guard.kind, guard.target, arguments=guard.arguments, selectors=selectors)
    return Policy("asked", hooks=(asked,)), Policy("guard", hooks=(both,))


def calls(matches: list[Match]) -> Iterator[tuple[Match, Match]]:
    """What both saw of each call, process by process."""
    asked: dict[int, Match] = {}
    for match in matches:
        if match.place.policy.name == "asked":
            asked[match.exec[1]] = match
        elif match.exec[1] in asked:
            yield asked.pop(match.exec[1]), match


def prove(
    enforcer: Enforcer,
    go: Callable[[], list[int]],
    shown: Callable[[Match], object],
    harmless: object,
    real: object,
) -> None:
    """Makes calls until enough were lied about. Of all calls the real ones were denied, and seen as what they are."""
    lied = 0
    give_up = time.monotonic() + SECONDS
    while lied < WANTED and time.monotonic() < give_up:
        did_harmless, did_real, refused = go()
        seen = [*calls(enforcer.matches())]
        assert enforcer.lost == {}
        assert len(seen) == did_harmless + refused
        assert did_real == 0
        assert sum(shown(guard) == real for _, guard in seen) == refused
        assert {guard.verdict for _, guard in seen if shown(guard) == real} <= {-EACCES}
        assert {shown(guard) for _, guard in seen if not guard.verdict} <= {harmless}
        lied += sum(shown(asked) == harmless and shown(guard) == real for asked, guard in seen)
    print(f"{lied} calls were lied about, and all denied")  # noqa: T201
    if not lied:
        pytest.skip(f"in {SECONDS:.0f} s no call was raced for on this machine")


def text(position: int) -> Callable[[Match], object]:
    def shown(match: Match) -> object:
        value = match.values[position if match.place.policy.name == "asked" else 0]
        return value and value.text.decode()

    return shown


def port(match: Match) -> object:
    value = match.values[1]
    return value and value.numbers[1]


def test_a_path_that_changes_during_open_is_denied_by_the_file_that_is_opened(racer: Path) -> None:
    harmless, real = str(racer.with_name("file0")), str(racer.with_name("file1"))
    asked = Hook(
        *("kprobe", "sys_openat", True),
        arguments=(Argument(0, "int"), Argument(1, "string")),
        selectors=(Selector(filters=(argument(1, "prefix", harmless[:-1]),)),),
    )
    guard = Hook("lsm", "file_open", arguments=(Argument(0, "file"),))
    found = policies(asked, guard, argument(0, "equal", real), argument(0, "equal", harmless))
    with in_force(*found, enforce=True, pid=0, kinds=("tracepoint", "lsm")) as enforcer:
        go = lambda: race(racer, "open", CALLS, harmless, real)[1][-1]  # noqa: E731
        prove(enforcer, go, text(1), harmless, real)


def test_a_path_that_is_not_in_memory_yet_is_denied_though_no_system_calls_hook_can_read_it(racer: Path) -> None:
    real = str(racer.with_name("file1"))
    selectors = (Selector(filters=(argument(1, "equal", real),)),)
    asked = Hook(
        "kprobe", "sys_openat", True, arguments=(Argument(0, "int"), Argument(1, "string")), selectors=selectors
    )
    selectors = (Selector(filters=(argument(0, "equal", real),), actions=DENY),)
    guard = Hook("lsm", "file_open", arguments=(Argument(0, "file"),), selectors=selectors)
    found = (Policy("asked", hooks=(asked,)), Policy("guard", hooks=(guard,)))
    with in_force(*found, enforce=True, pid=0, kinds=("tracepoint", "lsm")) as enforcer:
        assert race(racer, "absent", WANTED, real, real)[1] == [[0, 0, WANTED]]
        matches = enforcer.matches()
        assert enforcer.lost == {}
    assert [(match.place.policy.name, match.verdict) for match in matches] == [("guard", -EACCES)] * WANTED


def test_an_address_that_changes_during_connect_is_denied_by_where_it_goes(racer: Path) -> None:
    harmless, real = 5000, 5001
    asked = Hook(
        *("kprobe", "sys_connect", True),
        arguments=(Argument(0, "int"), Argument(1, "sockaddr")),
        selectors=(Selector(filters=(argument(1, "destination_port", harmless),)), Selector()),
    )
    guard = Hook("lsm", "socket_connect", arguments=(Argument(0, "socket"), Argument(1, "sockaddr")))
    to = [argument(1, "destination_port", number) for number in (real, harmless)]
    with in_force(*policies(asked, guard, *to), enforce=True, pid=0, kinds=("tracepoint", "lsm")) as enforcer:
        go = lambda: race(racer, "connect", CALLS, str(harmless), str(real))[1][-1]  # noqa: E731
        prove(enforcer, go, port, harmless, real)


def test_a_program_that_changes_during_execution_is_denied_by_the_file_that_is_run(racer: Path) -> None:
    harmless, real = str(racer.with_name("program0")), str(racer.with_name("program1"))
    asked = Hook(
        *("kprobe", "sys_execve", True),
        arguments=(Argument(0, "string"),),
        selectors=(Selector(filters=(argument(0, "prefix", harmless[:-1]),)),),
    )
    guard = Hook("lsm", "bprm_check_security", arguments=(Argument(0, "linux_binprm"),))
    found = policies(asked, guard, argument(0, "equal", real), argument(0, "equal", harmless))
    with in_force(*found, enforce=True, pid=0, kinds=("tracepoint", "lsm")) as enforcer:
        go = lambda: race(racer, "exec", PROCESSES, harmless, real)[1][-1]  # noqa: E731
        prove(enforcer, go, text(0), harmless, real)


def test_arguments_that_change_during_execution_are_told_as_the_program_got_them(racer: Path) -> None:
    changed = 0
    give_up = time.monotonic() + SECONDS
    with Tracer("trace_exec") as tracer:
        while changed < WANTED and time.monotonic() < give_up:
            pid, lines = race(racer, "arguments", PROCESSES, "is 0", "is 1")
            records = [record for record in tracer.records() if record["ppid"] == pid]
            assert [[record["pid"], int(record["args"][2][-1])] for record in records] == lines[:-1]
            changed += lines[-1][1]
        assert tracer.lost == 0
    print(f"{changed} arguments were changed, and told as they were then")  # noqa: T201
    assert changed, "no argument was raced for"
