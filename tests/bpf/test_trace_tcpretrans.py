"""trace tcpretrans: connections whose other end takes nothing, and the kernel's own count of what was sent again."""

import os
import socket
from typing import Any

import pytest

from tests.bpf import network
from tests.bpf.network import address, in_namespace
from tests.bpf.tracer import Tracer
from tests.waiting import wait_until

pytestmark = pytest.mark.bpf
CONNECTIONS = 7
SIZE = 1009
TIMEOUT, FAST, PROBE, SYNACK = 1, 2, 3, 4
ESTABLISHED, SYN_SENT, NEW_SYN_RECV = 1, 2, 12
SYN, ACK, SYN_ACK = 0x02, 0x10, 0x12


def of(pid: int, tracer: Tracer) -> list[dict[str, Any]]:
    return [record for record in tracer.records() if record["pid"] == pid]


def ends(record: dict[str, Any]) -> tuple[str, int, str, int]:
    return address(record["local"]), record["local_port"], address(record["remote"]), record["remote_port"]


def wait_until_sent_again(*socks: socket.socket) -> dict[int, int]:
    """Until each has sent something again, and then how much each has, by its port."""
    wait_until(lambda: all(map(network.sent_again, socks)))
    return {sock.getsockname()[1]: network.sent_again(sock) for sock in socks}


def talk_to_the_deaf(host: str) -> tuple[int, dict[int, int]]:
    """Sends to a server that takes nothing. Returns its port, and by the clients' ports the kernel's count."""
    with network.alone_on_cpu(), network.listener(host) as server:
        clients, accepted = [], []
        for _ in range(CONNECTIONS):
            clients.append(socket.create_connection(server.getsockname()[:2]))
            accepted.append(server.accept()[0])
            network.drop_all(accepted[-1])
            clients[-1].sendall(bytes(SIZE))
        wait_until_sent_again(*clients)
        for sock in accepted:
            network.drop_nothing(sock)
        for sock in accepted:
            left = SIZE
            while left:
                left -= len(sock.recv(left))
        return server.getsockname()[1], {client.getsockname()[1]: network.sent_again(client) for client in clients}


@pytest.mark.parametrize("host", [network.V4, network.V6])
def test_each_segment_sent_again_is_seen_as_often_as_the_kernel_counts(host: str) -> None:
    with Tracer("trace_tcpretrans") as tracer:
        pid, (server, counts) = in_namespace(lambda: talk_to_the_deaf(host))
        records = of(pid, tracer)
        assert tracer.lost == 0
    for port, count in counts.items():
        assert [ends(record) for record in records if record["local_port"] == port] == [
            (host, port, host, server)
        ] * count
    assert len(records) == sum(counts.values()) >= CONNECTIONS
    assert {record["state"] for record in records} == {ESTABLISHED}
    assert {record["bytes"] for record in records} == {SIZE}
    assert {record["reason"] for record in records} <= {TIMEOUT, PROBE}
    assert all(record["flags"] & ACK for record in records)
    assert {record["ppid"] for record in records} == {os.getpid()}


def test_a_connection_without_an_answer_is_asked_for_again() -> None:
    def deed() -> dict[int, int]:
        with network.alone_on_cpu(), network.listener(network.V4) as server:
            server.listen(0)
            with socket.create_connection(server.getsockname()), socket.socket() as sock:
                sock.setblocking(False)
                sock.connect_ex(server.getsockname())
                return wait_until_sent_again(sock)

    with Tracer("trace_tcpretrans") as tracer:
        pid, counts = in_namespace(deed)
        records = of(pid, tracer)
    told = [(record["local_port"], record["state"], record["flags"], record["reason"]) for record in records]
    assert told == [(port, SYN_SENT, SYN, TIMEOUT) for port, count in counts.items() for _ in range(count)]


def test_an_answer_sent_again_belongs_to_the_listener() -> None:
    def deed() -> tuple[int, int]:
        with network.alone_on_cpu(), network.listener(network.V4) as server, socket.socket() as sock:
            network.drop_all(sock)
            sock.setblocking(False)
            sock.connect_ex(server.getsockname())
            wait_until_sent_again(sock)
            return server.getsockname()[1], sock.getsockname()[1]

    with Tracer("trace_tcpretrans") as tracer:
        pid, (server, client) = in_namespace(deed)
        records = [record for record in of(pid, tracer) if record["reason"] == SYNACK]
    assert records
    assert {ends(record) for record in records} == {(network.V4, server, network.V4, client)}
    assert {(record["state"], record["flags"]) for record in records} == {(NEW_SYN_RECV, SYN_ACK)}


def test_the_stack_names_the_kernels_functions_when_asked_for() -> None:
    with Tracer("trace_tcpretrans", stack=True) as tracer:
        pid, _ = in_namespace(lambda: talk_to_the_deaf(network.V4))
        records = of(pid, tracer)
    assert records
    for record in records:
        assert any("tcp_retransmit_skb" in name or "tcp_send_loss_probe" in name for name in record["stack"])


def test_without_being_asked_for_there_is_no_stack() -> None:
    with Tracer("trace_tcpretrans") as tracer:
        pid, _ = in_namespace(lambda: talk_to_the_deaf(network.V4))
        assert {record["stack"] for record in of(pid, tracer)} == {None}
