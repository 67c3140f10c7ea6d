"""What policies written for the field's other engine ask for, in this kernel: types that the node says, elements,
registers by their names in assembler, and Override with `return`."""

import ctypes
import os
import platform
import sys
from pathlib import Path

import pytest

from kubectl_gadget.agent.bpf import btf
from kubectl_gadget.errors import AgentError
from kubectl_gadget.observe.decoders import event
from kubectl_gadget.policies.read.policy_files import parse_policies
from tests.bpf.policy_engine import Enforcer, in_force
from tests.bpf.test_policy_types import POLICY, TIMES, executed, shown, watching

pytestmark = pytest.mark.bpf
IS_X86 = platform.machine() == "x86_64"
LSEEK = 8 if IS_X86 else 62
PRCTL = 157 if IS_X86 else 167
FAR = 4444


def seek(descriptor: int, offset: int, whence: int) -> None:
    for _ in range(TIMES):
        ctypes.CDLL(None).syscall(LSEEK, descriptor, ctypes.c_long(offset), whence)


SEEKS = (
    "tracepoints: [{subsystem: syscalls, event: sys_enter_lseek, args: [%s],"
    " selectors: [{matchArgs: [{index: 7, operator: Equal, values: ['4444']}]}]}]"
)


@pytest.mark.parametrize("type", ["", ", type: auto"])
def test_fields_of_a_tracepoint_of_a_call_are_what_its_format_lists(tracefs: None, type: str) -> None:
    with watching(SEEKS % f"{{index: 7{type}}}, {{index: 5{type}}}", pid=os.getpid()) as enforcer:
        seek(-1, 0, FAR)
        seek(-1, 0, 1)
        matches = enforcer.matches()
    assert [shown(match) for match in matches] == [[("uint", FAR), ("uint", 0xFFFFFFFF)]] * TIMES


def test_a_text_that_a_call_is_given_is_read_from_its_caller(tracefs: None) -> None:
    spec = "tracepoints: [{subsystem: syscalls, event: sys_enter_faccessat, args: [{index: 6}]}]"
    with watching(spec, pid=os.getpid()) as enforcer:
        ctypes.CDLL(None).syscall(269 if IS_X86 else 48, -1, b"/nowhere", 0)
        matches = enforcer.matches()
    assert ("string", "/nowhere") in [shown(match)[0] for match in matches]


def test_texts_and_numbers_of_other_tracepoints_are_what_their_format_lists(tracefs: None) -> None:
    fields = Path("/sys/kernel/tracing/events/sched/sched_process_exec/format").read_text()
    names = [line.split(";")[0].split()[-1].split("[")[0] for line in fields.splitlines() if "field:" in line]
    file, pid = names.index("filename"), names.index("pid")
    spec = (
        f"tracepoints: [{{subsystem: sched, event: sched_process_exec, args: [{{index: {file}}}, {{index: {pid}}}]}}]"
    )
    found = executed(spec)
    assert [shown(match) for match in found] == [
        [("string", "/bin/true"), ("int", match.found.exec.pid)] for match in found
    ]
    assert found


def test_a_field_that_is_compared_as_what_it_is_not_is_refused(tracefs: None) -> None:
    spec = SEEKS.replace("Equal", "Prefix") % "{index: 7}"
    (policy,) = parse_policies([("p.yaml", POLICY % spec)], "d")
    with pytest.raises(AgentError, match="cannot be compared with a text"):
        Enforcer(policy).__enter__()


@pytest.mark.parametrize(
    ("type", "kind"), [("int64", "long"), ("uint64", "size"), ("uint32", "uint"), ("auto", "size")]
)
def test_a_number_is_read_from_the_beginning_of_an_array(tracefs: None, type: str, kind: str) -> None:
    spec = (
        f"tracepoints: [{{subsystem: raw_syscalls, event: sys_enter, args: [{{index: 4, type: syscall64}},"
        f" {{index: 5, type: {type}}}], selectors: [{{matchArgs: [{{index: 4, operator: Equal, values: ['sys_prctl']}},"
        " {index: 5, operator: Equal, values: ['65535']}]}]}]"
    )
    with watching(spec, pid=os.getpid()) as enforcer:
        for option in (0xFFFF, 0xFFFE):
            ctypes.CDLL(None).syscall(PRCTL, option)
        matches = enforcer.matches()
    assert [shown(match)[1] for match in matches] == [(kind, 0xFFFF)]


@pytest.mark.skipif(not IS_X86, reason="names of x86-64")
def test_registers_at_a_system_call_are_its_callers_by_the_names_of_assembler() -> None:
    registers = ("rdi", "rsi", "rdx", "r10", "r8")
    data = ", ".join(f"{{type: uint64, source: pt_regs, resolve: {name}}}" for name in registers)
    spec = (
        f"kprobes: [{{call: sys_prctl, syscall: true, data: [{data}],"
        " selectors: [{matchData: [{index: 0, operator: Equal, values: ['0xffff0']}]}]}]"
    )
    with watching(spec, pid=os.getpid()) as enforcer:
        ctypes.CDLL(None).syscall(PRCTL, 0xFFFF0, *(ctypes.c_ulong(0xFFFF0 + number) for number in range(1, 5)))
        ctypes.CDLL(None).syscall(PRCTL, 0xFFFF)
        matches = enforcer.matches()
    told = [[one.value for one in event(match, 0).data] for match in matches]
    assert told == [[0xFFFF0, 0xFFFF1, 0xFFFF2, 0xFFFF3, 0xFFFF4]]


def steps(function: str, parameter: int, *path: str | int) -> list[int]:
    kernel = btf.kernel()
    prototype = kernel.prototype(function)
    if prototype is None:
        pytest.skip(f"this kernel has no {function}")
    return kernel.follow(prototype.parameters[parameter], list(path))[0]


def test_a_member_is_found_through_a_pointer_to_a_pointer() -> None:
    cred, user = steps("security_prepare_creds", 0, "user"), steps("security_prepare_creds", 0, "user", "uid", "val")
    assert steps("security_inode_copy_up", 1, "user") == [0, *cred]
    assert steps("security_inode_copy_up", 1, "user", "uid", "val") == [0, *user]


def test_elements_are_counted_from_where_a_pointer_leads() -> None:
    assert steps("do_pipe2", 0, 0) == [0]
    assert steps("do_pipe2", 0, 1) == [4]
    assert steps("security_inode_copy_up", 1, 2) == [16]


DENIED = """kprobes:
  - call: security_file_open
    syscall: false
    return: true
    returnArg: {type: int}
    args: [{index: 0, type: file}]
    selectors:
    - matchArgs: [{index: 0, operator: Equal, values: ["%s"]}]
      matchActions: [{action: %s}]
"""


@pytest.mark.parametrize(
    ("action", "code", "verdict"),
    [("Override, argError: -13", 13, "EACCES"), ("Sigkill", -9, "EPERM SIGKILL")],
)
def test_what_is_denied_is_reported_at_the_return_with_what_was_returned(
    tmp_path: Path, action: str, code: int, verdict: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    (policy,) = parse_policies([("p.yaml", POLICY % (DENIED % (secret, action)))], "default")
    opening = f"import sys\ntry: open({str(secret)!r})\nexcept OSError as error: sys.exit(error.errno)"
    with in_force(policy, enforce=True, pid=0) as enforcer:
        status = os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", opening])
        told = [event(match, 0) for match in enforcer.matches()]
    assert status == code
    assert [(one.blocked, one.verdict) for one in told] == [(True, verdict)]
    assert told[0].returned is not None
    assert told[0].returned.value == (-13 if code == 13 else -1)
