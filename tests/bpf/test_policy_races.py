"""A thread exchanges what a call's argument points to, between the check and the use of it. Who reads it at the
beginning of the call is lied to; what security hooks are given is what is done.

How two processors run is chance, so the kernel is made to wait before it reads the argument (racer.c). Where only
another tracer can do that, it has to give up some time, so calls are made until enough were lied about.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.policies.compiler.policies import Match
from kubectl_gadget.policies.model import Action, Argument, Hook, HookFilter, Policy, Selector, Subject, Test, Value
from tests.agent.burners import OF_BPF, RACER, compile_c
from tests.agent.conftest import compile_bpf
from tests.bpf.policy_engine import Enforcer, in_force
from tests.bpf.tracer import Tracer

pytestmark = pytest.mark.bpf
EACCES = 13
DENY = (Action("Override", error=-EACCES),)
WANTED, MOST = 1000, 5000
"""How many calls shall be lied about, and after how many it is given up."""
HARMLESS, REAL, REFUSED = 0, 1, 100
"""What a call did, as the program says."""
SLOW_TRACER = "slow_tracer.bpf.o"


class Calls(NamedTuple):
    """One way to race: `values` are what is shown of the harmless thing and of the real one."""

    mode: str
    asked: Hook
    """reads at the beginning of the system call"""
    guard: Hook
    """is given what the kernel has read"""
    positions: tuple[int, int]
    """of the raced argument in both"""
    test: Test
    values: tuple[Value, Value]
    tracer: str = ""
    """the program that makes the kernel wait"""

    def policies(self) -> tuple[Policy, Policy]:
        """One that asks for both values, and one that denies the real one."""
        at_call, at_hook = (
            [argument(position, self.test, value) for value in self.values] for position in self.positions
        )
        asked = tuple(Selector(filters=(either,)) for either in at_call)
        guard = Selector(filters=(at_hook[0],)), Selector(filters=(at_hook[1],), actions=DENY)
        return (
            Policy("asked", hooks=(replace(self.asked, selectors=asked),)),
            Policy("guard", hooks=(replace(self.guard, selectors=guard),)),
        )

    def shown(self, match: Match) -> Value | None:
        value = match.values[self.positions[match.place.policy.name == "guard"]]
        if value is None:
            return None
        return value.numbers[1] if self.test == "destination_port" else value.text.decode()


def argument(position: int, test: Test, value: Value) -> HookFilter:
    return HookFilter(Subject("argument", position), test, (value,))


def calls(mode: str, folder: Path) -> Calls:
    address = Argument(1, "sockaddr")
    if mode == "open":
        asked = Hook("kprobe", "sys_openat2", True, arguments=(Argument(0, "int"), Argument(1, "string")))
        guard = Hook("lsm", "file_open", arguments=(Argument(0, "file"),))
        return Calls(mode, asked, guard, (1, 0), "equal", (str(folder / "file0"), str(folder / "file1")))
    if mode == "connect":
        asked = Hook("kprobe", "sys_connect", True, arguments=(Argument(0, "int"), address))
        guard = Hook("lsm", "socket_connect", arguments=(Argument(0, "socket"), address))
        return Calls(mode, asked, guard, (1, 1), "destination_port", (5000, 5001), "wait_in_connect")
    asked = Hook("kprobe", "sys_execve", True, arguments=(Argument(0, "string"),))
    guard = Hook("lsm", "bprm_check_security", arguments=(Argument(0, "linux_binprm"),))
    files = str(folder / "program0"), str(folder / "program1")
    return Calls(mode, asked, guard, (0, 0), "equal", files, "wait_in_execve")


@pytest.fixture(scope="module")
def racer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, in a folder with two files that it opens and two copies of it that it executes."""
    folder = tmp_path_factory.mktemp("racer")
    compile_c(folder / "racer", *RACER)
    for digit in "01":
        (folder / f"file{digit}").write_text(digit)
        (folder / f"program{digit}").write_bytes((folder / "racer").read_bytes())
        (folder / f"program{digit}").chmod(0o755)
    compile_bpf(OF_BPF / "slow_tracer.bpf.c", folder / SLOW_TRACER)
    return folder / "racer"


@contextmanager
def slow_tracer(racer: Path, program: str) -> Iterator[int | None]:
    """The other tracer, after all that are attached already; the map that it shares. Without a name: none."""
    if not program:
        yield None
        return
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("the tracer waits on one processor for what is done on another, and there is only one")
    object = BpfObject((racer.parent / SLOW_TRACER).read_bytes(), "slow_tracer", [program])
    try:
        object.load()
        object.attach(program)
        map = object.map("slow_tracer_race")
        assert map is not None
        yield map.fd
    finally:
        object.close()


class Done(NamedTuple):
    """A call: whose, what it did, and of arguments what the tracer read."""

    process: int
    deed: int
    shown: str = ""


def race(
    racer: Path, mode: str, values: tuple[Value, Value], map: int | None = None, count: int = WANTED
) -> list[Done]:
    command = [str(racer), mode, str(count), str(values[0]), str(values[1]), *([] if map is None else [str(map)])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, pass_fds=[] if map is None else [map])
    assert done.returncode == 0, done.stderr
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert len(lines) == count
    return [Done(int(process), int(deed), *shown) for process, deed, *shown in lines]


def seen(matches: list[Match], name: str, done: list[Done]) -> list[Match]:
    """What a policy saw, call by call: one is over before the next begins."""
    processes = {call.process for call in done}
    found = [match for match in matches if match.place.policy.name == name and match.found.exec[1] in processes]
    assert len(found) == len(done)
    return found


def until_enough_were_lied_about(
    how: Calls, racer: Path, enforcer: Enforcer, deed: int, prove: Callable[[list[Match], list[Done]], None]
) -> None:
    """A call was lied about when the policy at its beginning was shown the harmless thing and the real one was done."""
    lied = made = 0
    with slow_tracer(racer, how.tracer) as map:
        while lied < WANTED and made < MOST:
            done = race(racer, how.mode, how.values, map, WANTED - lied)
            made += len(done)
            matches = enforcer.matches()
            assert enforcer.lost == {}
            prove(matches, done)
            lied += sum(
                how.shown(match) == how.values[0] and call.deed == deed
                for match, call in zip(seen(matches, "asked", done), done, strict=True)
            )
    print(f"{how.mode}: {lied} of {made} calls were lied about")  # noqa: T201
    assert lied == WANTED


@pytest.mark.parametrize("mode", ["open", "connect", "exec"])
def test_a_hook_at_the_beginning_of_a_call_sees_the_harmless_value(mode: str, racer: Path) -> None:
    how = calls(mode, racer.parent)
    with in_force(how.policies()[0], pid=0, kinds=("tracepoint",)) as enforcer:
        until_enough_were_lied_about(how, racer, enforcer, REAL, lambda matches, done: None)


@pytest.mark.parametrize("mode", ["open", "connect", "exec"])
def test_what_is_really_done_is_denied_and_reported_at_the_security_hook(mode: str, racer: Path) -> None:
    how = calls(mode, racer.parent)

    def prove(matches: list[Match], done: list[Done]) -> None:
        deeds = [call.deed for call in done]
        assert set(deeds) <= {HARMLESS, REFUSED}
        told = {HARMLESS: (how.values[0], 0), REFUSED: (how.values[1], -EACCES)}
        guard = seen(matches, "guard", done)
        assert [(how.shown(match), match.found.verdict) for match in guard] == [told[deed] for deed in deeds]

    with in_force(*how.policies(), enforce=True, pid=0, kinds=("tracepoint", "lsm")) as enforcer:
        until_enough_were_lied_about(how, racer, enforcer, REFUSED, prove)


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
        assert {call.deed for call in race(racer, "absent", (real, real))} == {REFUSED}
        matches = enforcer.matches()
        assert enforcer.lost == {}
    assert [(match.place.policy.name, match.found.verdict) for match in matches] == [("guard", -EACCES)] * WANTED


def test_arguments_that_change_during_execution_are_reported_as_the_program_got_them(racer: Path) -> None:
    with Tracer("trace_exec") as tracer, slow_tracer(racer, "show_argument") as map:
        done = race(racer, "arguments", ("is 0", "is 1"), map)
        processes = {call.process for call in done}
        records = [record for record in tracer.records() if record["pid"] in processes]
        assert tracer.lost == 0
    assert {(call.shown, call.deed) for call in done} == {("is 0", REAL)}, "the call's beginning shows the harmless one"
    assert [(record["pid"], record["args"][2]) for record in records] == [(call.process, "is 1") for call in done]
