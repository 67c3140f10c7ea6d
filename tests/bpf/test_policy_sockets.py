"""TrackSock: events of a socket have the process that tracked it, whichever process acts, until UntrackSock."""

import os
import socket
import sys
from subprocess import Popen

import pytest

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.compiler.hooks import hook_spec
from kubectl_gadget.policies.compiler.policies import CompiledPolicies, matches
from kubectl_gadget.policies.compiler.selectors import CompilerOptions
from kubectl_gadget.policies.model import Action, ActionKind, Argument, Hook, Policy, Selector
from kubectl_gadget.policies.read.policy_files import parse_policies
from kubectl_gadget.wire.policy_record import Value
from tests.bpf.policy_engine import Enforcer, pid_of

pytestmark = pytest.mark.bpf
SYN_SENT, CLOSE = 2, 7
POLICY = """apiVersion: cilium.io/v1alpha1
kind: TracingPolicy
metadata: {name: sockets}
spec:
  tracepoints:
  - subsystem: sock
    event: inet_sock_set_state
    raw: true
    args: [{index: 0, type: sock}, {index: 1, type: int}, {index: 2, type: int}]
    selectors:
    - matchArgs:
      - {index: 2, operator: Equal, values: ["2"]}
      - {index: 0, operator: DPort, values: ["%d"]}
      matchActions: [{action: %s, argSock: 0}]
    - matchArgs:
      - {index: 2, operator: Equal, values: ["7"]}
      - {index: 0, operator: DPort, values: ["%d"]}
      matchActions: [{action: %s, argSock: 0}]
    - matchArgs: [{index: 0, operator: DPort, values: ["%d"]}]
"""
HANDED_ON = """
import _socket as socket, os, sys
connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
connection.connect(("127.0.0.1", int(sys.argv[1])))
if os.fork():
    connection.close()
    os.waitpid(-1, 0)
else:
    connection.shutdown(socket.SHUT_RDWR)
"""


def sockets(port: int, first: str, last: str) -> Policy:
    (policy,) = parse_policies([("policy.yaml", POLICY % (port, first, port, last, port))], "default")
    return policy


def told(first: str, last: str, pid: int = 0) -> tuple[int, list[tuple[int, int]]]:
    """The process that made the connection; of each event whose it was, and the state that the socket came to. `pid`:
    the user wants to see no other process."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with Enforcer(sockets(port, first, last), pid=pid) as enforcer:
            with Popen([sys.executable, "-S", "-c", HANDED_ON, str(port)]) as maker:
                accepted, _ = server.accept()
                accepted.recv(1)
                accepted.close()
            records = enforcer.records()
            events = [match for record in records for match in matches(record, enforcer.engine.hooks)]
            assert [pid_of(record) for record in records] == [event.found.exec.pid for event in events]
            return maker.pid, [(event.found.exec.pid, number(event.values[2])) for event in events]


def number(value: Value | None) -> int:
    assert value
    return value.numbers[0]


def test_a_connection_that_was_handed_on_stays_its_makers_until_it_is_untracked() -> None:
    maker, events = told("TrackSock", "UntrackSock")
    assert events[0][1] == SYN_SENT
    assert events[-1][1] == CLOSE
    assert len(events) >= 4
    assert {pid for pid, _ in events} == {maker}


def test_without_it_the_process_that_acts_is_reported() -> None:
    maker, events = told("Post", "Post")
    assert {pid for pid, _ in events} - {maker}


def test_actions_on_the_socket_of_an_unselected_owner_are_not_reported() -> None:
    # Whether it acts is a matter of where the kernel lets packets come in.
    assert any(told("Post", "Post", pid=os.getpid())[1] for _ in range(50))
    assert not told("TrackSock", "UntrackSock", pid=os.getpid())[1]


def test_an_action_that_names_no_socket_is_refused() -> None:
    with pytest.raises(UsageError, match="argSock 0 is not an argument that is a sock"):
        CompiledPolicies([Policy("p", hooks=(connect("int", "TrackSock"),))], CompilerOptions())


def connect(type: str, action: ActionKind) -> Hook:
    selector = Selector(actions=(Action(action, socket=0),))
    return Hook("kprobe", "tcp_connect", arguments=(Argument(0, type),), selectors=(selector,))


def test_policies_that_track_have_programs_of_their_own() -> None:
    tracking, other = (Policy(action, hooks=(connect("sock", action),)) for action in ("TrackSock", "Post"))
    hooks = CompiledPolicies([tracking, other], CompilerOptions()).hooks
    assert [hook_spec(hook).variables["policy_tracks_sockets"] for hook in hooks] == [True, False]
