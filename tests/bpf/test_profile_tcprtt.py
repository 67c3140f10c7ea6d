"""profile tcprtt: each segment that a connection over loopback receives counts once, at both ends."""

import os
import socket
import struct
from typing import Any

import pytest

from tests.bpf import network
from tests.bpf.answers import Answers
from tests.bpf.deeds import name_thread
from tests.bpf.network import address, in_namespace

pytestmark = pytest.mark.bpf
TIMES = 101
NAME = f"talks-{os.getpid()}"
"""Nobody else has it."""
UNACKED, SEGMENTS_IN = 24, 140
"""Where struct tcp_info of include/uapi/linux/tcp.h has them."""
HANDSHAKE, FAREWELL = 3, 1
"""Segments that come before a connection is established (SYN, SYN-ACK, ACK), and the FIN that comes while it is."""


def information(sock: socket.socket, place: int) -> int:
    found: int = struct.unpack_from("<I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192), place)[0]
    return found


def ping_pong(host: str) -> tuple[int, int]:
    """How many segments both ends received while they were connected, and the server's port."""
    with network.listener(host) as server, socket.socket(server.family) as client:
        client.connect(server.getsockname())
        accepted, _ = server.accept()
        with accepted:
            for _ in range(TIMES):
                for sender, receiver in ((client, accepted), (accepted, client)):
                    sender.sendall(b"x")
                    receiver.recv(1)
            while information(client, UNACKED) or information(accepted, UNACKED):
                pass  # the last acknowledgement may wait for company
            segments = information(client, SEGMENTS_IN) + information(accepted, SEGMENTS_IN)
            client.shutdown(socket.SHUT_WR)
            assert accepted.recv(1) == b""
        return segments - HANDSHAKE + FAREWELL, server.getsockname()[1]


def talk(host: str, **parameters: Any) -> tuple[list[dict[str, Any]], int, int]:
    """Records, expected segments, the server's port."""

    def ping_pong_under_a_name() -> tuple[int, int]:
        name_thread(NAME)
        return ping_pong(host)

    with Answers("profile_tcprtt", comm=NAME, **parameters) as profile:
        _, (segments, port) = in_namespace(ping_pong_under_a_name)
        records = profile.take()
        assert profile.lost == 0
    return records, segments, port


@pytest.mark.parametrize("host", [network.V4, network.V6])
def test_each_segment_that_is_received_counts_once(host: str) -> None:
    (record,), segments, _ = talk(host, remotes=True)
    assert address(record["remote"]) == host
    assert record["count"] == sum(record["buckets"]) == segments >= 2 * TIMES
    assert 0 < record["max"] < 10_000_000_000
    assert record["cgroup"]


def test_remote_addresses_are_not_distinguished_unless_it_is_asked_for() -> None:
    records, _, _ = talk(network.V4)
    assert {record["remote"].to_bytes(16, "little") for record in records} == {b"\xff" * 16}


def test_only_connections_from_the_port_that_was_asked_for_count() -> None:
    records, _, port = talk(network.V4, local_port=1)
    assert records == []
    assert port != 1
