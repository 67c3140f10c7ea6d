"""trace sni: real hellos by Python's ssl and by a QUIC client, and every row that they become."""

import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from tests.bpf import map_shares, network
from tests.bpf.network import in_namespace
from tests.bpf.viewed import Viewed

pytestmark = pytest.mark.bpf
TIMES = 31
NAME = "ship.rebels.example"


def hello(name: str | None = NAME, *, alpn: tuple[str, ...] = ("h2", "http/1.1"), highest: int | None = None) -> bytes:
    """The bytes that Python's ssl opens a connection with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.set_alpn_protocols(list(alpn))
    if highest is not None:
        context.maximum_version = ssl.TLSVersion(highest)
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def say(data: bytes, host: str = network.V4, piece: int = 1 << 16, before: bytes = b"") -> int:
    """Sends `data` over a new connection in segments of `piece` bytes. Returns the server's port."""
    with network.listener(host) as server, socket.create_connection(server.getsockname()[:2]) as client:
        accepted, _ = server.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in (before, *(data[start : start + piece] for start in range(0, len(data), piece))):
            client.sendall(part)
            count = len(part)
            while count:
                count -= len(accepted.recv(count))
        accepted.close()
        return int(server.getsockname()[1])


def of(pid: int, tracer: Viewed, role: str = "") -> list[dict[str, Any]]:
    return [row for row in tracer.rows() if row["pid"] == pid and role in ("", row["role"])]


@pytest.mark.parametrize("host", [network.V4, network.V6])
def test_each_hello_is_one_row_at_either_end(host: str) -> None:
    with Viewed("trace_sni") as tracer:
        pid, ports = in_namespace(lambda: [say(hello(f"n{number}.example"), host) for number in range(TIMES)])
        rows = of(pid, tracer)
        assert tracer.lost == 0
    clients = [row for row in rows if row["role"] == "client"]
    servers = [row for row in rows if row["role"] == "server"]
    names = [f"n{number}.example" for number in range(TIMES)]
    assert [row["name"] for row in clients] == names
    assert [row["name"] for row in servers] == names
    assert [row["remote_port"] for row in clients] == ports
    assert [row["local_port"] for row in servers] == ports
    for row in rows:
        assert (row["version"], row["alpn"], row["protocol"]) == ("TLS1.3", ["h2", "http/1.1"], "TCP")
        assert (row["local"], row["remote"], row["ech"]) == (host, host, False)
        assert row["comm"] == Path("/proc/self/comm").read_text().strip()


@pytest.mark.parametrize("piece", [1, 3, 100])
def test_a_hello_in_many_segments_is_read(piece: int) -> None:
    with Viewed("trace_sni") as tracer:
        pid, _ = in_namespace(lambda: [say(hello(), piece=piece) for _ in range(3)])
        rows = of(pid, tracer)
    assert [(row["role"], row["name"]) for row in rows] == [("client", NAME), ("server", NAME)] * 3


def test_a_container_with_many_incomplete_hellos_leaves_room_for_others_and_its_own_losses_count() -> None:
    with Viewed("trace_sni") as tracer:
        map_shares.fill(tracer, "gadget_socket_shares", "gadget_socket_states", share=1)
        pid, _ = in_namespace(lambda: say(hello(), piece=100))
        assert [row["name"] for row in of(pid, tracer)] == [NAME] * 2
        assert tracer.lost == 0
        in_namespace(lambda: say(hello()[:200]))
        assert map_shares.entries(tracer, "gadget_socket_shares", share=0) == 0, "the sockets are closed"
        map_shares.fill(tracer, "gadget_socket_shares", "gadget_socket_states", share=0)
        in_namespace(lambda: say(hello(), piece=100))
        assert tracer.lost > 0


def test_a_hello_may_follow_other_messages() -> None:
    with Viewed("trace_sni") as tracer:
        pid, _ = in_namespace(lambda: say(hello(), before=b"EHLO ship\r\nSTARTTLS\r\n"))
        rows = of(pid, tracer, "client")
    assert [row["name"] for row in rows] == [NAME]


def test_a_client_without_a_server_name_and_old_versions_are_reported() -> None:
    with Viewed("trace_sni") as tracer:
        pid, _ = in_namespace(lambda: say(hello(None, alpn=(), highest=ssl.TLSVersion.TLSv1_2)))
        (row,) = of(pid, tracer, "client")
    assert (row["name"], row["version"], row["version_raw"], row["alpn"]) == (None, "TLS1.2", 0x303, [])


def test_bytes_that_only_begin_like_a_hello_make_no_row() -> None:
    begins = [
        b"\x16",
        b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00",
        b"\x16\x03\x01\xff\xff\x01\x00\x00\x01\x00",
        b"x" * 99,
    ]
    with Viewed("trace_sni") as tracer:
        pid, _ = in_namespace(lambda: [say(begin + bytes(5000)) for begin in begins])
        assert of(pid, tracer) == []


def test_only_the_port_that_is_asked_for_is_examined() -> None:
    with Viewed("trace_sni", port=1) as tracer:
        pid, _ = in_namespace(lambda: say(hello()))
        assert of(pid, tracer) == []


def quic_hello(name: str, alpn: list[str]) -> list[bytes]:
    """The datagrams that a QUIC client opens a connection with."""
    configuration = QuicConfiguration(is_client=True, server_name=name, alpn_protocols=alpn)
    connection = QuicConnection(configuration=configuration)
    connection.connect((network.V4, 443), now=0.0)
    return [data for data, _ in connection.datagrams_to_send(now=0.0)]


@pytest.mark.parametrize("protocols", [1, 400])
def test_quic_says_the_name_too_also_in_several_datagrams(protocols: int) -> None:
    alpn = [f"p{number}" for number in range(protocols)]

    def deed() -> list[int]:
        counts = []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind((network.V4, 443))
            for number in range(7):
                datagrams = quic_hello(f"n{number}.example", alpn)
                counts.append(len(datagrams))
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                    for datagram in datagrams:
                        client.sendto(datagram, (network.V4, 443))
                        server.recv(2000)
        return counts

    with Viewed("trace_sni") as tracer:
        pid, counts = in_namespace(deed)
        rows = of(pid, tracer, "client")
    assert (max(counts) > 1) == (protocols > 1)
    assert [row["name"] for row in rows] == [f"n{number}.example" for number in range(7)]
    assert {(row["protocol"], row["remote_port"], row["version"]) for row in rows} == {("UDP", 443, "TLS1.3")}
    assert all(row["alpn"] == alpn for row in rows)


def test_a_whole_handshake_is_one_row() -> None:
    """With a server that has no certificate: its alert to the client is not a second hello."""

    def deed() -> None:
        with network.listener(network.V4) as server:
            client = socket.create_connection(server.getsockname())
            accepted, _ = server.accept()

            def refuse() -> None:
                with pytest.raises(ssl.SSLError):
                    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).wrap_socket(accepted, server_side=True)

            thread = threading.Thread(target=refuse)
            thread.start()
            with pytest.raises(ssl.SSLError):
                ssl.create_default_context().wrap_socket(client, server_hostname=NAME)
            thread.join()

    with Viewed("trace_sni") as tracer:
        pid, _ = in_namespace(deed)
        rows = of(pid, tracer)
    assert [(row["role"], row["name"]) for row in rows] == [("client", NAME), ("server", NAME)]
