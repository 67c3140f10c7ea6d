"""snapshot socket: sockets in known states, with and without a process."""

import os
import socket

import pytest

from tests.bpf.answers import Answers
from tests.bpf.network import address

pytestmark = pytest.mark.bpf
TIMES = 17
ESTABLISHED, TIME_WAIT, LISTEN = 1, 6, 10
UNCONNECTED = 257


def test_each_socket_is_there_once_with_its_process_and_state() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    pairs = [(socket.create_connection(("127.0.0.1", port)), listener.accept()[0]) for _ in range(TIMES)]
    udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    udp.bind(("::1", 0))
    # A second descriptor of the same socket.
    copy = udp.dup()
    try:
        with Answers("snapshot_socket") as snapshot:
            records = snapshot.take()
    finally:
        for one, other in pairs:
            one.close()
            other.close()
        for item in (listener, udp, copy):
            item.close()
    mine = [record for record in records if record["pid"] == os.getpid()]
    ours = [record for record in mine if port in (record["local_port"], record["remote_port"])]
    assert sorted(record["state"] for record in ours) == [ESTABLISHED] * 2 * TIMES + [LISTEN]
    assert len([record for record in ours if record["local_port"] == port]) == TIMES + 1
    others = [record for record in mine if record["state"] == UNCONNECTED and record["family"] == socket.AF_INET6]
    (datagrams,) = [record for record in others if record["protocol"] == socket.IPPROTO_UDP]
    assert (address(datagrams["remote"]), datagrams["remote_port"]) == ("::", 0)
    (listens,) = [record for record in ours if record["state"] == LISTEN]
    assert (address(listens["remote"]), listens["remote_port"]) == ("0.0.0.0", 0)


def test_connections_without_a_process_are_there() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    for _ in range(TIMES):
        client = socket.create_connection(("127.0.0.1", port))
        server, _ = listener.accept()
        client.close()
        server.close()
    with Answers("snapshot_socket", port=port) as snapshot:
        records = snapshot.take()
    listener.close()
    waiting = [record for record in records if record["state"] == TIME_WAIT]
    assert [record["pid"] for record in waiting] == [0] * TIMES
    assert {record["remote_port"] for record in waiting} == {port}
    assert [record["state"] for record in records if record["pid"] == os.getpid()] == [LISTEN]


def test_only_those_that_listen_are_shown_when_asked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with (
            socket.create_connection(("127.0.0.1", port)),
            Answers("snapshot_socket", port=port, listening=True) as snapshot,
        ):
            records = snapshot.take()
    assert [(record["state"], record["local_port"], record["pid"]) for record in records] == [
        (LISTEN, port, os.getpid())
    ]
