"""System calls by their names: as values, in lists that a node makes, and those of 32-bit programs, in this kernel."""

import os
import platform
import signal
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kubectl_gadget.agent.kernel.hooks import look_up
from kubectl_gadget.observe.decoders import event
from kubectl_gadget.observe.lines import shape
from kubectl_gadget.policies.check import question, unseen_variants
from kubectl_gadget.policies.language import COMPAT_CALL, number_on
from kubectl_gadget.policies.model import Argument, Hook, HookFilter, Policy, Subject, SystemCall
from kubectl_gadget.policies.read.policy_files import parse_policies
from tests.bpf import compat, deeds
from tests.bpf.policy_engine import Enforcer, in_force
from tests.policies.compiler import random_policies as some
from tests.policies.oracle import Call, Process, decide

pytestmark = [
    pytest.mark.bpf,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the programs that it makes are for x86-64"),
]
POLICY = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: calls}
spec:
"""
NUMBER = Argument(4, "syscall64")
ENTRY = Hook("tracepoint", "raw_syscalls/sys_enter", arguments=(NUMBER,))
NAMES = ("getppid", "lseek", "times", "getpgrp")
"""Which nothing does by itself between the lines of these tests."""
CALLS = (*(SystemCall(name) for name in NAMES), *(SystemCall(name, "i386") for name in NAMES))
NUMBERS = {call: number_on(call, "x86_64") or 0 for call in CALLS}


class Child:
    """A process that makes these calls when it is let, first its own ones, then those of a 32-bit program."""

    def __init__(self, folder: Path, calls: Sequence[tuple[int | bytes, ...]]) -> None:
        program = folder / "program"
        program.unlink(missing_ok=True)
        own = [call for call in calls if not _is_compat(call)]
        program.write_bytes(deeds.i386_program([_plain(call) for call in calls if _is_compat(call)]))
        program.chmod(0o700)
        receive, self._send = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.read(receive, 1)
            for number, *arguments in own:
                assert isinstance(number, int)
                deeds.syscall(number, *arguments)
            os.execv(program, [str(program)])
        os.close(receive)

    def run(self) -> None:
        os.write(self._send, b"1")
        os.close(self._send)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if status == 8:
            pytest.skip("this kernel runs no 32-bit programs")
        assert status == 0


def _is_compat(call: Sequence[int | bytes]) -> bool:
    return isinstance(call[0], int) and bool(call[0] & COMPAT_CALL)


def _plain(call: tuple[int | bytes, ...]) -> tuple[int | bytes, ...]:
    number, *arguments = call
    assert isinstance(number, int)
    return (number & ~COMPAT_CALL, *arguments)


@contextmanager
def watching(spec: str, child: Child) -> Iterator[Enforcer]:
    (policy,) = parse_policies([("policy.yaml", POLICY + spec)], "default")
    with in_force(policy, pid=child.pid) as enforcer:
        yield enforcer


def call_filters() -> st.SearchStrategy[HookFilter]:
    values = st.lists(st.sampled_from([*CALLS, *NUMBERS.values()]), min_size=1, max_size=5)
    return st.builds(
        lambda chosen, negated: HookFilter(Subject("argument"), "equal", tuple(chosen), negated), values, st.booleans()
    )


@settings(
    deadline=None,
    max_examples=10,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(some.policies(ENTRY, call_filters()), st.lists(st.sampled_from(CALLS), min_size=1, max_size=12))
def test_names_of_calls_match_as_in_the_model(tmp_path: Path, policies: list[Policy], made: list[SystemCall]) -> None:
    # In the order in which the child makes them.
    numbers = [NUMBERS[call] for call in sorted(made, key=lambda call: bool(call.abi))]
    child = Child(tmp_path, [(number, -1) for number in numbers])
    with in_force(*policies, pid=child.pid) as enforcer:
        child.run()
        found = [
            (match.values[0].numbers[0], match.place.policy.name, match.place.number)
            for match in enforcer.matches()
            if match.values[0] and match.values[0].numbers[0] in NUMBERS.values()
        ]
    expected = [
        (number, decision.policy, decision.selector)
        for number in numbers
        for decision in decide(policies, lambda policy: policy.hooks, Call(Process(), {NUMBER: number}))
    ]
    assert found == expected


def test_lists_of_calls_are_values_and_events_say_whose_call_it_is(tmp_path: Path) -> None:
    spec = """
  lists: [{name: some, type: syscalls, values: [sys_getppid, i386/sys_times]}]
  tracepoints:
  - subsystem: raw_syscalls
    event: sys_enter
    args: [{index: 4, type: syscall64}]
    selectors: [{matchArgs: [{index: 4, operator: InMap, values: ["list:some"]}]}]
"""
    # 43 is getsockname of 64-bit programs, and 110 iopl of 32-bit ones.
    calls = [(110,), (43,), (COMPAT_CALL | 43, 0), (COMPAT_CALL | 110, 0)]
    child = Child(tmp_path, calls)
    with watching(spec, child) as enforcer:
        child.run()
        told = [event(match, 0, "x86_64") for match in enforcer.matches()]
    assert [(item.kind, item.value) for one in told for item in one.args] == [
        ("syscall_id", {"id": 110, "abi": "x64"}),
        ("syscall_id", {"id": 43, "abi": "i386"}),
    ]
    assert [shape(one)[1:] for one in told] == [("syscall", ["getppid()"]), ("syscall", ["i386/times()"])]


ACCESS = COMPAT_CALL | 33
ENOENT = -2


def test_a_hook_at_a_call_of_32_bit_programs_reads_its_arguments(tmp_path: Path) -> None:
    spec = """
  kprobes:
  - call: i386/sys_access
    syscall: true
    args: [{index: 0, type: string}, {index: 1, type: int}]
    selectors: [{matchArgs: [{index: 0, operator: Postfix, values: [/nothing]}]}]
"""
    other = 21  # access of 64-bit programs
    calls: list[tuple[int | bytes, ...]] = [
        (other, b"/nowhere/nothing", 4),
        (ACCESS, b"/nowhere/nothing", 4),
        (ACCESS, b"/nowhere/something", 4),
    ]
    child = Child(tmp_path, calls)
    with watching(spec, child) as enforcer:
        assert enforcer.hooks == ["tp_btf/sys_enter"]
        child.run()
        (told,) = (event(match, 0) for match in enforcer.matches())
    assert [item.value for item in told.args] == ["/nowhere/nothing", 4]
    assert told.function == "__ia32_sys_access"


AT_SYS_ACCESS = """
  kprobes:
  - call: sys_access
    args: [{index: 0, type: string}, {index: 1, type: int}]
    selectors:
    - matchArgs: [{index: 0, operator: Postfix, values: [/nothing]}]
      matchActions: [{action: ACTION}]
"""


def test_a_hook_at_a_call_sees_it_of_32_bit_programs_too(tmp_path: Path) -> None:
    calls: list[tuple[int | bytes, ...]] = [(ACCESS, b"/nowhere/nothing", 4), (ACCESS, b"/nowhere/something", 4)]
    child = Child(tmp_path, [(21, b"/own/nothing", 0), *calls])
    with watching(AT_SYS_ACCESS.replace("ACTION", "Post"), child) as enforcer:
        child.run()
        told = [event(match, 0, "x86_64") for match in enforcer.matches()]
        assert enforcer.mirrors in (["fentry/__ia32_sys_access"], ["tp_btf/sys_enter (access)"])
    assert [(one.function, one.args[0].value, one.args[1].value) for one in told] == [
        ("sys_access", "/own/nothing", 0),
        ("__ia32_sys_access", "/nowhere/nothing", 4),
    ]


@pytest.mark.parametrize(
    ("kinds", "way"),
    [(("fentry",), "fentry/__ia32_compat_sys_openat"), (("tracepoint", "tp_btf"), "tp_btf/sys_enter (openat)")],
)
def test_a_hook_at_openat_sees_int_0x80_by_each_way(kinds: tuple[str, ...], way: str) -> None:
    compat.needs()
    spec = """
  kprobes:
  - call: sys_openat
    args: [{index: 1, type: string}, {index: 2, type: int}]
    selectors: [{matchArgs: [{index: 1, operator: Equal, values: [/nowhere/nothing]}]}]
"""
    (policy,) = parse_policies([("policy.yaml", POLICY + spec)], "default")
    with in_force(policy, kinds=kinds) as enforcer:
        assert compat.call("openat", -100, b"/nowhere/nothing", os.O_WRONLY) == ENOENT
        told = [event(match, 0, "x86_64") for match in enforcer.matches()]
        assert enforcer.mirrors == [way]
    assert [(one.function, [item.value for item in one.args]) for one in told] == [
        ("__ia32_sys_openat", ["/nowhere/nothing", os.O_WRONLY])
    ]


CONNECT = """
  kprobes:
  - call: sys_connect
    args: [{index: 0, type: int}, {index: 2, type: int}]
    selectors: [{matchArgs: [{index: 0, operator: Equal, values: ["-4711"]}]}]
"""


def test_a_hook_at_all_calls_sees_what_no_function_does() -> None:
    compat.needs()
    (policy,) = parse_policies([("policy.yaml", POLICY + CONNECT)], "default")
    with in_force(policy, kinds=("tp_btf",)) as enforcer:
        deeds.syscall(42, -4711, 0, 15)
        compat.call("connect", -4711, 0, 16)
        arguments = struct.pack("<iii", -4711, 0, 17)
        compat.call("socketcall", 3, compat.place(arguments))
        told = [event(match, 0, "x86_64") for match in enforcer.matches()]
    assert [(one.function, [item.value for item in one.args]) for one in told] == [
        ("sys_connect", [-4711, 15]),
        ("__ia32_sys_connect", [-4711, 16]),
        ("__ia32_sys_connect", [-4711, 17]),
    ]


def test_variants_of_a_call_are_one_hook_at_all_calls() -> None:
    compat.needs()
    spec = "  kprobes:\n  - {call: sys_setfsuid, args: [{index: 0, type: uint32}]}\n"
    (policy,) = parse_policies([("policy.yaml", POLICY + spec)], "default")
    with in_force(policy, kinds=("tp_btf",)) as enforcer:
        assert enforcer.mirrors == ["tp_btf/sys_enter (setfsuid)"]
        assert enforcer.warnings() == []
        compat.call("setfsuid", 0xFFFF)
        compat.call("setfsuid32", 0xFFFFFFFF)
        told = [event(match, 0, "x86_64") for match in enforcer.matches()]
    assert [one.args[0].value for one in told] == [0xFFFFFFFF, 0xFFFFFFFF]


def test_the_hook_at_the_return_is_beside_the_one_at_the_call() -> None:
    compat.needs()
    returns = CONNECT.replace("sys_connect", "sys_connect\n    return: true\n    returnArg: {type: int}")
    texts = [("one.yaml", POLICY + CONNECT), ("two.yaml", POLICY.replace("calls", "returns") + returns)]
    policies = parse_policies(texts, "default")
    with in_force(*policies, kinds=("tp_btf",)) as enforcer:
        assert enforcer.mirrors == ["tp_btf/sys_enter (connect)", "tp_btf/sys_exit (connect)"]
        compat.call("connect", -4711, 0, 16)
        assert len(enforcer.matches()) == 2


def test_hooks_that_look_alike_have_rate_limits_of_their_own() -> None:
    compat.needs()
    limited = CONNECT.rstrip()[:-2] + ", matchActions: [{action: Post, rateLimit: 1h}]}]\n"
    both = limited + limited.partition("  kprobes:\n")[2].replace("connect", "bind")
    (policy,) = parse_policies([("policy.yaml", POLICY + both)], "default")
    with in_force(policy, kinds=("tp_btf",)) as enforcer:
        deeds.syscall(42, -4711, 0, 16)
        compat.call("connect", -4711, 0, 16)
        compat.call("bind", -4711, 0, 16)
        told = [event(match, 0, "x86_64").function for match in enforcer.matches()]
    assert told == ["sys_connect", "__ia32_sys_connect", "__ia32_sys_bind"]


def test_a_check_tries_what_an_installation_attaches() -> None:
    compat.needs()
    (policy,) = parse_policies([("policy.yaml", POLICY + CONNECT)], "default")
    own, mirror = look_up(question([policy])).ways.values()
    with in_force(policy) as enforcer:
        assert [own.way, mirror.way] == [*enforcer.hooks, *enforcer.mirrors]
        assert not list(unseen_variants(policy, look_up(question([policy]))))


def test_a_process_that_makes_the_call_by_int_0x80_is_killed() -> None:
    compat.needs()
    (policy,) = parse_policies([("policy.yaml", POLICY + AT_SYS_ACCESS.replace("ACTION", "Sigkill"))], "default")
    receive, send = os.pipe()
    pid = os.fork()
    if not pid:
        os.read(receive, 1)
        compat.call("access", b"/nowhere/nothing", 4)
        os._exit(0)
    with in_force(policy, enforce=True, allow_weaker=True, pid=pid):
        os.write(send, b"1")
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def test_what_a_call_of_32_bit_programs_returned_is_reported(tmp_path: Path) -> None:
    spec = """
  lists: [{name: both, type: syscalls, values: [i386/sys_access, sys_access]}]
  kprobes:
  - call: "list:both"
    args: [{index: 0, type: string}]
    return: true
    returnArg: {type: int}
    selectors: [{matchReturnArgs: [{operator: LT, values: ["0"]}]}]
"""
    there = str(tmp_path).encode()
    calls: list[tuple[int | bytes, ...]] = [(ACCESS, there, 0), (ACCESS, b"/nowhere/nothing", 0)]
    child = Child(tmp_path, calls)
    with watching(spec, child) as enforcer:
        child.run()
        told = [event(match, 0) for match in enforcer.matches()]
    by_32_bits = [one for one in told if one.function == "__ia32_sys_access"]
    assert [(one.args[0].value, one.returned and one.returned.value) for one in by_32_bits] == [
        ("/nowhere/nothing", ENOENT)
    ]


def test_a_list_of_all_system_calls_reports_which_one_it_was(tmp_path: Path) -> None:
    spec = """
  lists: [{name: every, type: generated_syscalls}]
  kprobes:
  - call: "list:every"
    args: [{index: 0, type: int}]
    return: true
    returnArg: {type: int}
    selectors: [{matchArgs: [{index: 0, operator: Equal, values: ["-4711"]}]}]
"""
    lseek, times = NUMBERS[SystemCall("lseek")], NUMBERS[SystemCall("times", "i386")]
    getpgid = 121
    child = Child(tmp_path, [(lseek, -4711), (getpgid, -4711), (getpgid, -1), (times, -4711)])
    with watching(spec, child) as enforcer:
        assert enforcer.hooks == ["tp_btf/sys_exit"]
        child.run()
        told = [event(match, 0) for match in enforcer.matches()]
    assert [(one.function, one.returned and one.returned.value) for one in told] == [
        ("sys_lseek", -9),  # EBADF
        ("sys_getpgid", -3),  # ESRCH
    ]


def test_a_list_of_functions_that_match_a_pattern_is_one_hook(tmp_path: Path) -> None:
    spec = """
  lists: [{name: folders, type: generated_ftrace, pattern: "^vfs_(mkdir|rmdir|symlink)$"}]
  kprobes:
  - call: "list:folders"
    syscall: false
    args: [{index: 2, type: dentry}]
"""
    (policy,) = parse_policies([("policy.yaml", POLICY + spec)], "default")
    with in_force(policy) as enforcer:
        assert enforcer.hooks == ["kprobe.multi/folders"]
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder").rmdir()
        (tmp_path / "link").symlink_to("nowhere")
        told = [event(match, 0) for match in enforcer.matches()]
    assert [one.function for one in told] == ["vfs_mkdir", "vfs_rmdir", "vfs_symlink"]
    assert [str(one.args[0].value["path"]).rpartition("/")[2] for one in told] == ["folder", "folder", "link"]
