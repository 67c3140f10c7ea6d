"""Arguments as this kernel has them, in the JSON that strict readers of security events take: what is in them, and that
what cannot be read says so."""

import ctypes
import json
import mmap
import os
import socket
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from kubectl_gadget.observe.decoders import event
from kubectl_gadget.observe.messages import strict_body
from kubectl_gadget.policies.compiler.policies import Match
from kubectl_gadget.wire.policy_events import policy_body
from tests.bpf.test_policy_types import EXEC, executed, watching
from tests.observe.strict_schema import ENUMS, MESSAGES
from tests.strict_reader import strict_reader

pytestmark = pytest.mark.bpf
MARK, PRIORITY = 77, 5
STATES = (
    "tracepoints: [{subsystem: sock, event: inet_sock_set_state, raw: true,"
    " args: [{index: 0, type: sock}, {index: 2}]}]"
)
PACKETS = (
    "tracepoints: [{subsystem: net, event: net_dev_queue, raw: true, args: [{index: 0, type: skb}],"
    " selectors: [{matchArgs: [{args: [0], operator: DPort, values: ['%d']}]}]}]"
)
WRITES = (
    "kprobes: [{call: sys_write, syscall: true, args: [{index: 0, type: int},"
    " {index: 1, type: char_buf, sizeArgIndex: 3}, {index: 2, type: size_t}]}]"
)


@pytest.fixture(scope="module", name="read")
def a_strict_reader() -> Callable[[Sequence[Match]], list[Any]]:
    reader = strict_reader(ENUMS, MESSAGES, "Response")

    def read(matches: Sequence[Match]) -> list[Any]:
        events = [event(match, 0) for match in matches]
        kinds = [f"process_{one.hook}" for one in events]
        bodies = [strict_body(kind, policy_body(one)) for kind, one in zip(kinds, events, strict=True)]
        texts = [json.dumps({kind: body}) for kind, body in zip(kinds, bodies, strict=True)]
        return [getattr(reader(text), kind) for kind, text in zip(kinds, texts, strict=True)]

    return read


def test_credentials_are_those_of_the_program(read: Callable[[Sequence[Match]], list[Any]]) -> None:
    found = read(executed(EXEC % ("{index: 0, type: cred, resolve: cred}", "")))
    assert found
    status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines() if ":" in line)
    permitted = int(status["CapPrm"], 16)
    for one in found:
        credentials = one.args[0].process_credentials_arg
        assert (credentials.uid.value, credentials.euid.value) == (os.getuid(), os.geteuid())
        assert list(credentials.caps.permitted) == [bit for bit in range(64) if permitted >> bit & 1]
        assert credentials.user_ns.ns.inum == os.stat("/proc/self/ns/user").st_ino
        level = credentials.user_ns.level.value
        assert credentials.user_ns.ns.is_host == (level == 0)


def test_a_socket_is_known_again_by_its_cookie_and_has_all_that_it_was_given(
    read: Callable[[Sequence[Match]], list[Any]],
) -> None:
    held: list[socket.socket] = []  # at once, or the second one would lie where the first one did
    with watching(STATES, pid=os.getpid()) as enforcer:
        for _ in range(2):
            server = socket.create_server(("127.0.0.1", 0))
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, PRIORITY)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
            client.connect(server.getsockname())
            held += [client, server]
        for one in held:
            one.close()
        found = [one.args for one in read(enforcer.matches())]
    marked = [args for args in found if args[0].sock_arg.mark == MARK]
    assert len({args[0].sock_arg.cookie for args in marked}) == 2
    for sock, state in marked:
        assert (sock.sock_arg.type, sock.sock_arg.protocol) == ("SOCK_STREAM", "IPPROTO_TCP")
        assert (sock.sock_arg.family, sock.sock_arg.daddr) == ("AF_INET", "127.0.0.1")
        assert sock.sock_arg.priority == PRIORITY
        assert sock.sock_arg.state.startswith("TCP_")
        assert state.WhichOneof("one") == "int_arg"
    assert {args[0].sock_arg.state for args in found} >= {"TCP_LISTEN", "TCP_CLOSE"}


def test_a_packet_has_its_length_mark_and_protocol(read: Callable[[Sequence[Match]], list[Any]]) -> None:
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    with watching(PACKETS % server.getsockname()[1], pid=os.getpid()) as enforcer, server:
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
        client.sendto(b"seven77", server.getsockname())
        client.close()
        (found,) = read(enforcer.matches())
    packet = found.args[0].skb_arg
    assert (packet.protocol, packet.proto, packet.mark) == ("IPPROTO_UDP", socket.IPPROTO_UDP, MARK)
    assert packet.len >= 7 + 8 + 20


def test_a_member_of_a_null_pointer_is_unread_and_not_zero(read: Callable[[Sequence[Match]], list[Any]]) -> None:
    found = read(executed(EXEC % ("{index: 0, type: uint32, resolve: vfork_done.done}", "")))
    assert found
    assert {one.args[0].error_arg.Message for one in found} == {"the uint32 cannot be read"}


def test_what_cannot_be_read_matches_neither_an_operator_nor_its_opposite() -> None:
    for operator in ("Equal", "NotEqual"):
        selector = f", selectors: [{{matchArgs: [{{args: [0], operator: {operator}, values: ['0']}}]}}]"
        assert executed(EXEC % ("{index: 0, type: uint32, resolve: vfork_done.done}", selector)) == []


def written(spec: str, read: Callable[[Sequence[Match]], list[Any]]) -> Any:
    """The event of a write of 7 bytes that nothing has touched yet."""
    number = 1 if os.uname().machine == "x86_64" else 64
    with tempfile.TemporaryFile() as file, tempfile.TemporaryFile() as copy:
        file.write(b"unseen!".ljust(mmap.PAGESIZE, b"\0"))
        file.flush()
        fresh = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(fresh))
        with watching(spec, pid=os.getpid()) as enforcer:
            ctypes.CDLL(None).syscall(number, copy.fileno(), ctypes.c_void_p(address), ctypes.c_size_t(7))
            found = [one for one in read(enforcer.matches()) if one.args[0].int_arg == copy.fileno()]
    (event,) = found
    return event


def test_a_buffer_that_is_not_in_memory_says_so(read: Callable[[Sequence[Match]], list[Any]]) -> None:
    found = written(WRITES, read)
    assert found.args[1].error_arg.Message == "the char_buf of 7 bytes cannot be read"
    assert found.function_name.endswith("_sys_write")
    assert found.function_name.startswith("__")


def test_a_buffer_that_was_not_in_memory_is_read_when_the_call_returns(
    read: Callable[[Sequence[Match]], list[Any]],
) -> None:
    found = written(WRITES.replace("args:", "return: true, returnArg: {type: long}, args:"), read)
    assert found.args[1].bytes_arg == b"unseen!"
    assert getattr(found, "return").long_arg == 7
