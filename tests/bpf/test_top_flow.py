"""top flow: real connections and datagrams over loopback, prime numbers of them, and who began, at both ends."""

import os
import socket
from typing import Any

import pytest

from tests.bpf import network
from tests.bpf.answers import Answers
from tests.bpf.network import address, in_namespace

pytestmark = pytest.mark.bpf
CONNECTIONS, DATAGRAMS, SIZE = 13, 17, 1009
EGRESS, INGRESS = 1, 2
TCP, UDP, SCTP = 6, 17, 132
HEADERS = {socket.AF_INET: 28, socket.AF_INET6: 48}
HOSTS = [network.V4, network.V6, "::ffff:127.0.0.1"]


def rows(top: Answers, port: int) -> list[dict[str, Any]]:
    """The records of flows to this port, egress first."""
    return sorted((row for row in top.take() if row["port"] == port), key=lambda row: int(row["direction"]))


def connect(host: str, listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    client = socket.create_connection(listener.getsockname()[:2])
    server, _ = listener.accept()
    return client, server


@pytest.mark.parametrize("host", HOSTS)
def test_connections_count_at_the_end_that_began_and_at_the_other(host: str) -> None:
    def deed() -> int:
        with network.listener(host) as listener:
            for _ in range(CONNECTIONS):
                for end in connect(host, listener):
                    end.close()
            return int(listener.getsockname()[1])

    with Answers("top_flow") as top:
        _, port = in_namespace(deed)
        egress, ingress = rows(top, port)
        assert top.lost == 0
    shown = str(host).removeprefix("::ffff:")
    headers = 80
    for row, direction in ((egress, EGRESS), (ingress, INGRESS)):
        assert (row["direction"], address(row["remote"]), row["port"]) == (direction, shown, port)
        assert address(row["local"]) == shown
        assert (row["protocol"], row["connections"]) == (TCP, CONNECTIONS)
        assert row["interval"] > 0
    assert egress["cgroup"] == os.stat(cgroup_folder()).st_ino
    for sender, receiver in ((egress, ingress), (ingress, egress)):
        # The last packet of a connection belongs to no socket any more at the end that was closed first.
        assert abs(sender["sent_packets"] - receiver["received_packets"]) <= CONNECTIONS
        assert abs(sender["sent"] - receiver["received"]) <= CONNECTIONS * 2 * headers


def cgroup_folder() -> str:
    path = next(line for line in open("/proc/self/cgroup").read().splitlines() if line.startswith("0::"))[3:]
    mounts = (line.split() for line in open("/proc/self/mountinfo"))
    root, mount = next((fields[3], fields[4]) for fields in mounts if "cgroup2" in fields)
    return mount + "/" + os.path.relpath(path, root)


@pytest.mark.parametrize("host", HOSTS)
def test_of_a_connection_older_than_the_trace_the_listener_shows_the_client(host: str) -> None:
    def deed() -> tuple[int, list[dict[str, Any]]]:
        with network.listener(host) as listener:
            client, server = connect(host, listener)
            port = int(listener.getsockname()[1])
            with client, server, Answers("top_flow") as top:
                # In the middle of the connection, and the server is the first to send.
                server.sendall(bytes(SIZE))
                client.recv(SIZE, socket.MSG_WAITALL)
                client.sendall(bytes(SIZE))
                server.recv(SIZE, socket.MSG_WAITALL)
                return port, rows(top, port)

    _, (_, (egress, ingress)) = in_namespace(deed)
    assert (egress["direction"], ingress["direction"]) == (EGRESS, INGRESS)
    assert (egress["connections"], ingress["connections"]) == (1, 1)


@pytest.mark.parametrize("host", HOSTS)
def test_datagrams_belong_to_the_sender_of_the_first(host: str) -> None:
    def deed() -> int:
        family = network.FAMILIES[host]
        with socket.socket(family, socket.SOCK_DGRAM) as server, socket.socket(family, socket.SOCK_DGRAM) as client:
            server.bind((host, 0))
            for _ in range(DATAGRAMS):
                client.sendto(bytes(SIZE), server.getsockname()[:2])
                _, peer = server.recvfrom(SIZE)
                server.sendto(b"x", peer)
                client.recv(1)
            return int(server.getsockname()[1])

    with Answers("top_flow") as top:
        _, port = in_namespace(deed)
        egress, ingress = rows(top, port)
    headers = HEADERS[socket.AF_INET6 if host == network.V6 else socket.AF_INET]
    assert (egress["protocol"], egress["direction"], egress["connections"]) == (UDP, EGRESS, 1)
    assert (egress["sent_packets"], egress["sent"]) == (DATAGRAMS, DATAGRAMS * (headers + SIZE))
    assert (egress["received_packets"], egress["received"]) == (DATAGRAMS, DATAGRAMS * (headers + 1))
    assert (ingress["direction"], ingress["received"]) == (INGRESS, egress["sent"])


def test_a_filter_on_the_port_leaves_others_out() -> None:
    def deed() -> tuple[int, int]:
        with network.listener(network.V4) as wanted, network.listener(network.V4) as other:
            with Answers("top_flow", port=wanted.getsockname()[1]) as top:
                for listener in (wanted, other):
                    for end in connect(network.V4, listener):
                        end.close()
                ports = {row["port"] for row in top.take()}
            assert ports == {wanted.getsockname()[1]}

    in_namespace(deed)


def test_sctp_counts() -> None:
    def deed() -> int | None:
        try:
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
        except OSError:
            return None
        with listener:
            listener.bind((network.V4, 0))
            listener.listen(5)
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP) as client:
                client.connect(listener.getsockname())
                listener.accept()[0].close()
            return int(listener.getsockname()[1])

    with Answers("top_flow") as top:
        _, port = in_namespace(deed)
        if port is None:
            pytest.skip("this kernel has no SCTP (CONFIG_IP_SCTP)")
        assert [(row["direction"], row["protocol"]) for row in rows(top, port)] == [(EGRESS, SCTP), (INGRESS, SCTP)]
