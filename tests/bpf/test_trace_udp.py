"""trace udp: real packets over loopback, prime numbers of them, and every field of the rows of both ends."""

import os
import socket
import time
from contextlib import ExitStack
from typing import Any

import pytest

from tests.bpf import network
from tests.bpf.network import address, in_namespace
from tests.bpf.tracer import Tracer

pytestmark = pytest.mark.bpf
PACKETS, SIZE, REPLIES, REPLY = 31, 1201, 7, 53
CLIENTS = 23
FIRST, FLOW, END = 1, 2, 3
HOSTS = [network.V4, network.V6, "::ffff:127.0.0.1"]
UDP_SEGMENT = 103
COMM = open("/proc/self/comm").read().strip()


def bound(host: str, port: int = 0) -> socket.socket:
    sock = socket.socket(network.FAMILIES[host], socket.SOCK_DGRAM)
    sock.bind((host, port))
    return sock


def talk(host: str, connect: bool, port: int = 0) -> tuple[int, int]:
    """Sends packets both ways. Returns the client's and the server's port."""
    with bound(host, port) as server, bound(host) as client:
        if connect:
            client.connect(server.getsockname()[:2])
        for number in range(PACKETS):
            if connect:
                client.send(bytes(SIZE))
            else:
                client.sendto(bytes(SIZE), server.getsockname()[:2])
            _, peer = server.recvfrom(SIZE)
            if number < REPLIES:
                server.sendto(bytes(REPLY), peer)
                client.recv(REPLY)
        return client.getsockname()[1], server.getsockname()[1]


def of(pid: int, tracer: Tracer, operation: int | None = None) -> list[dict[str, Any]]:
    return [record for record in tracer.records() if record["pid"] == pid and operation in (None, record["operation"])]


def ends(record: dict[str, Any]) -> tuple[str, int, str, int]:
    return address(record["local"]), record["local_port"], address(record["remote"]), record["remote_port"]


def numbers(record: dict[str, Any]) -> tuple[int, int, int, int]:
    return record["sent_packets"], record["sent"], record["received_packets"], record["received"]


@pytest.mark.parametrize("connect", [True, False])
@pytest.mark.parametrize("host", HOSTS)
def test_a_flow_has_a_first_and_a_last_row_at_both_ends(host: str, connect: bool) -> None:
    with Tracer("trace_udp", interval=0) as tracer:
        pid, (client, server) = in_namespace(lambda: talk(host, connect))
        records = of(pid, tracer)
        assert tracer.lost == 0
    shown = host.removeprefix("::ffff:")
    asked, answered = (shown, client, shown, server), (shown, server, shown, client)
    assert [(record["operation"], ends(record)) for record in records[:2]] == [(FIRST, asked), (FIRST, answered)]
    assert [numbers(record) for record in records[:2]] == [(1, SIZE, 0, 0), (0, 0, 1, SIZE)]
    last = {ends(record): (record["operation"], numbers(record)) for record in records[2:]}
    sent, received = (PACKETS, PACKETS * SIZE), (REPLIES, REPLIES * REPLY)
    assert last == {asked: (END, (*sent, *received)), answered: (END, (*received, *sent))}
    assert len(records) == 4
    assert {(record["comm"], record["ppid"]) for record in records} == {(COMM, os.getpid())}


def test_each_client_of_a_server_is_a_flow_of_its_own() -> None:
    def deed() -> tuple[int, list[int]]:
        # All open at once, or two of them may get the same port, one after the other.
        with ExitStack() as stack, bound(network.V4) as server:
            clients = [stack.enter_context(bound(network.V4)) for _ in range(CLIENTS)]
            for client in clients:
                client.sendto(b"x", server.getsockname())
                server.recv(1)
            return server.getsockname()[1], [client.getsockname()[1] for client in clients]

    with Tracer("trace_udp") as tracer:
        pid, (server, clients) = in_namespace(deed)
        ended = of(pid, tracer, END)
    assert sorted(record["remote_port"] for record in ended if record["local_port"] == server) == sorted(clients)
    assert sorted(record["local_port"] for record in ended if record["remote_port"] == server) == sorted(clients)
    assert len(ended) == 2 * CLIENTS


def test_while_packets_come_there_is_a_row_for_each_interval_and_not_more() -> None:
    def deed() -> None:
        with bound(network.V4) as server, bound(network.V4) as client:
            client.connect(server.getsockname())
            for _ in range(PACKETS):
                client.send(b"x")
                time.sleep(0.011)

    with Tracer("trace_udp", interval=50) as tracer:
        pid, _ = in_namespace(deed)
        rows = [record for record in of(pid, tracer) if record["sent_packets"]]
    told = [record["duration"] for record in rows if record["operation"] == FLOW]
    assert told
    assert all(later - earlier >= 50_000_000 for earlier, later in zip([0, *told], told, strict=False))
    counts = [record["sent_packets"] for record in rows]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (1, PACKETS)


def test_a_packet_that_is_cut_into_segments_counts_as_them() -> None:
    def deed() -> None:
        with bound(network.V4) as server, bound(network.V4) as client:
            client.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 100)
            client.sendto(bytes(100 * CLIENTS), server.getsockname())

    with Tracer("trace_udp", interval=0) as tracer:
        pid, _ = in_namespace(deed)
        sender = next(record for record in of(pid, tracer, END) if record["sent_packets"])
    assert (sender["sent_packets"], sender["sent"]) == (CLIENTS, 100 * CLIENTS)


def test_a_socket_older_than_the_trace_has_its_process() -> None:
    with bound(network.V4) as server:
        port = server.getsockname()[1]
        with Tracer("trace_udp", port=port) as tracer:
            server.sendto(b"x", server.getsockname())
            server.recv(1)
            (first,) = tracer.records()
    assert (first["pid"], first["operation"], first["local_port"]) == (os.getpid(), FIRST, port)


def test_the_port_filter_takes_either_end() -> None:
    with bound(network.V4) as server, Tracer("trace_udp", port=server.getsockname()[1]) as tracer:
        with bound(network.V4) as other, bound(network.V4) as client:
            client.sendto(b"x", other.getsockname())
            client.sendto(b"x", server.getsockname())
        records = tracer.records()
    assert [record["operation"] for record in records] == [FIRST, FIRST, END]


def test_other_protocols_are_not_reported() -> None:
    def deed() -> None:
        with network.listener(network.V4) as server, socket.create_connection(server.getsockname()) as client:
            client.send(b"x")

    with Tracer("trace_udp") as tracer:
        pid, _ = in_namespace(deed)
        assert of(pid, tracer) == []
