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
NONE = 2**64 - 1


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


def test_a_socket_that_stays_is_there_each_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, Answers("snapshot_socket") as snapshot:
        port = listener.getsockname()[1]
        turns = [[row for row in snapshot.take() if row["local_port"] == port] for _ in range(3)]
    assert [[(row["pid"], row["state"]) for row in turn] for turn in turns] == [[(os.getpid(), LISTEN)]] * 3


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


def test_queues_say_what_waits_to_be_accepted_read_and_acknowledged() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=23) as listener:
        port = listener.getsockname()[1]
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(TIMES)]
        accepted, name = listener.accept()
        client = next(client for client in clients if client.getsockname() == name)
        client.sendall(b"x" * 1009)
        # The other end reads nothing, so that the rest is neither acknowledged nor sent.
        accepted.setblocking(False)
        waiting = 0
        try:
            while True:
                waiting += accepted.send(bytes(1 << 16))
        except BlockingIOError:
            pass
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", 0))
        udp.sendto(b"unread", udp.getsockname())
        try:
            with Answers("snapshot_socket") as snapshot:
                records = snapshot.take()
            datagrams = udp.getsockname()[1]
        finally:
            for item in (*clients, accepted, udp):
                item.close()
    queues = ("receive_queue", "send_queue", "accept_queue", "backlog")
    (listens,) = [record for record in records if record["state"] == LISTEN and record["local_port"] == port]
    assert tuple(listens[name] for name in queues) == (NONE, NONE, TIMES - 1, 23)
    (server,) = [
        record
        for record in records
        if (record["local_port"], record["remote_port"], record["pid"]) == (port, name[1], os.getpid())
    ]
    assert server["receive_queue"] == 1009
    assert 0 < server["send_queue"] < waiting
    assert (server["accept_queue"], server["backlog"]) == (NONE, NONE)
    (read_by,) = [record for record in records if (record["local_port"], record["remote_port"]) == (name[1], port)]
    assert read_by["receive_queue"] + server["send_queue"] == waiting
    (datagram,) = [record for record in records if record["local_port"] == datagrams and record["pid"] == os.getpid()]
    assert datagram["receive_queue"] > len(b"unread")
    # Those that wait have no process yet.
    waits = [record for record in records if record["local_port"] == port and record["pid"] == 0]
    assert [record["state"] for record in waits] == [ESTABLISHED] * (TIMES - 1)
