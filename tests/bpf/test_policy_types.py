"""Types of arguments in this kernel: what each is read to, what the node's BTF says, and filters on them.

Calls of system calls and raw tracepoints, which every kernel takes; what needs kprobes is skipped elsewhere.
"""

import ctypes
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.errors import AgentError, UsageError
from kubectl_gadget.observe.decoders import event
from kubectl_gadget.policies.compiler.policies import CompiledPolicies, Match
from kubectl_gadget.policies.compiler.selectors import CompilerOptions
from kubectl_gadget.policies.read.policy_files import parse_policies
from tests.bpf.policy_engine import Enforcer, in_force

pytestmark = pytest.mark.bpf
POLICY = """
apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: types}
spec:
  %s
"""
TIMES = 7


@contextmanager
def watching(spec: str, pid: int = 0) -> Iterator[Enforcer]:
    (policy,) = parse_policies([("policy.yaml", POLICY % spec)], "default")
    with in_force(policy, pid=pid) as enforcer:
        yield enforcer


def shown(match: Match) -> list[tuple[str, Any]]:
    """Its arguments as JSON has them."""
    return [(argument.kind, argument.value) for argument in event(match, 0).args]


def executed(spec: str, program: str = "/bin/true") -> list[Match]:
    """What matched while the program was run, of the processes that this one started."""
    with watching(spec) as enforcer:
        for _ in range(TIMES):
            subprocess.run([program], check=True)
        return [match for match in enforcer.matches() if match.found.parent.pid == os.getpid()]


EXEC = "tracepoints: [{subsystem: sched, event: sched_process_exec, raw: true, args: [%s]%s}]"


def test_what_is_left_open_is_what_the_kernels_btf_says() -> None:
    matches = executed(EXEC % ("{index: 0}, {index: 1}, {index: 2}", ""))
    assert len(matches) == TIMES
    for match in matches:
        _, pid, program = match.values
        assert pid
        assert program
        assert pid.numbers == (match.found.exec.pid,)
        assert Path(os.fsdecode(program.text)).samefile("/bin/true")


def test_members_are_found_by_btf_in_a_raw_tracepoints_arguments() -> None:
    arguments = (
        *("{index: 0, type: string, resolve: comm}", "{index: 0, type: int, resolve: real_parent.tgid}"),
        "{index: 2, type: file, resolve: file}",
    )
    matches = executed(EXEC % (", ".join(arguments), ""))
    assert len(matches) == TIMES
    for match in matches:
        comm, parent, file = match.values
        assert comm
        assert parent
        assert file
        assert (comm.text, parent.numbers) == (b"true", (os.getpid(),))
        assert Path(os.fsdecode(file.text)).samefile("/bin/true")


def test_filters_ask_what_members_lead_to() -> None:
    selector = ", selectors: [{matchArgs: [{args: [0], operator: Equal, values: ['true']}]}]"
    spec = EXEC % ("{index: 0, type: string, resolve: comm}", selector)
    assert len(executed(spec)) == TIMES
    assert executed(spec, "/bin/pwd") == []


def test_an_argument_that_is_left_open_is_compared_as_what_it_is() -> None:
    selector = ", selectors: [{matchArgs: [{index: 2, operator: Postfix, values: [/true]}]}]"
    assert len(executed(EXEC % ("{index: 2}", selector))) == TIMES
    (policy,) = parse_policies(
        [("p.yaml", POLICY % (EXEC % ("{index: 2}", selector.replace("Postfix", "GT").replace("/true", "5"))))], "d"
    )
    with pytest.raises(AgentError, match="argument 2 of sched_process_exec is a linux_binprm on this node"):
        Enforcer(policy).__enter__()


def test_data_come_from_the_task_and_are_filtered() -> None:
    spec = f"""kprobes:
  - call: sys_faccessat
    syscall: true
    args: [{{index: 1, type: string}}]
    data:
    - {{type: string, source: current_task, resolve: comm, label: name}}
    - {{type: int, source: current_task, resolve: real_parent.tgid}}
    selectors: [{{matchData: [{{index: 1, operator: Equal, values: ["{os.getppid()}"]}}]}}]
"""
    with watching(spec, pid=os.getpid()) as enforcer:
        for _ in range(TIMES):
            _faccessat(b"/nowhere")
        matches = enforcer.matches()
    assert len(matches) == TIMES
    told = event(matches[0], 0)
    assert [(item.kind, item.value, item.label) for item in told.data] == [
        ("string", Path("/proc/self/comm").read_text().strip(), "name"),
        ("int", os.getppid(), ""),
    ]


def _faccessat(path: bytes) -> None:
    number = 269 if platform.machine() == "x86_64" else 48
    ctypes.CDLL(None).syscall(number, -1, path, 0)


def test_several_buffers_are_read_in_turn() -> None:
    spec = """kprobes:
  - call: sys_writev
    syscall: true
    args: [{index: 0, type: int}, {index: 1, type: char_iovec, sizeArgIndex: 3}]
"""
    receive, send = os.pipe()
    pieces = [b"first ", b"second ", bytes(range(17))]
    with watching(spec, pid=os.getpid()) as enforcer:
        for _ in range(TIMES):
            os.writev(send, pieces)
        matches = enforcer.matches()
        os.set_blocking(send, False)
        os.writev(send, [b"x" * 3000] * 3)
        (long,) = enforcer.matches()
    os.close(receive)
    os.close(send)
    assert [match.values[1].text for match in matches if match.values[1]] == [b"".join(pieces)] * TIMES
    (_, value) = long.values
    assert value
    assert (value.text, value.numbers, value.cut) == (b"x" * 4095, (9000,), True)
    kind, told = shown(long)[1]
    assert (kind, told["orig_size"]) == ("truncated_bytes", 9000)


def test_what_bpf_is_asked_for_is_read_from_its_caller() -> None:
    spec = """kprobes:
  - call: sys_bpf
    syscall: true
    args: [{index: 0, type: bpf_cmd}, {index: 1, type: bpf_attr}]
    selectors: [{matchArgs: [{index: 0, operator: Equal, values: ["5"]}]}]
"""
    number = 321 if platform.machine() == "x86_64" else 280
    attributes = ctypes.create_string_buffer(144)
    ctypes.memmove(attributes, (1).to_bytes(4, "little") + (3).to_bytes(4, "little"), 8)
    ctypes.memmove(ctypes.addressof(attributes) + 48, b"asked_name", 10)
    with watching(spec, pid=os.getpid()) as enforcer:
        for _ in range(TIMES):
            ctypes.CDLL(None).syscall(number, 5, attributes, len(attributes))
        matches = enforcer.matches()
    attr = {"ProgType": "BPF_PROG_TYPE_SOCKET_FILTER", "InsnCnt": 3, "ProgName": "asked_name"}
    assert [shown(match) for match in matches] == [[("bpf_cmd", "BPF_PROG_LOAD"), ("bpf_attr", attr)]] * TIMES


@pytest.mark.parametrize("hook", ["kprobes: [{call: sys_write, syscall: true, args: [{index: 1, resolve: comm}]}]"])
def test_what_btf_does_not_know_is_refused_with_the_reason(hook: str) -> None:
    (policy,) = parse_policies([("policy.yaml", POLICY % hook)], "default")
    with pytest.raises(UsageError, match="uses the kernel's BTF"):
        CompiledPolicies([policy], CompilerOptions())


def test_what_is_written_to_a_socket_is_read_out_of_the_kernels_iterator() -> None:
    spec = """kprobes:
  - call: unix_stream_sendmsg
    syscall: false
    args: [{index: 0, type: socket}, {index: 1, type: iov_iter, resolve: msg_iter}, {index: 2, type: size_t}]
"""
    script = (
        "import socket; a, b = socket.socketpair(); [a.sendmsg([b'one ', b'two']) for _ in range(7)]; a.send(b'all')"
    )
    with watching(spec) as enforcer:
        subprocess.run([sys.executable, "-S", "-c", script], check=True)
        texts = [match.values[1].text for match in enforcer.matches() if match.values[1]]
    assert texts == [*[b"one two"] * 7, b"all"]
