"""trace http with gRPC: a real server and a real client of grpcio over loopback, and every row that they become."""

import socket
import subprocess
import sys
import threading
from contextlib import suppress
from functools import partial

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived, StreamEnded

from kubectl_gadget.protocols.http2 import PREFACE
from kubectl_gadget.protocols.tcp import Stream, packets
from kubectl_gadget.rows.batch import decode
from tests.bpf import network
from tests.bpf.network import in_namespace
from tests.bpf.viewed import Viewed

pytestmark = pytest.mark.bpf
TIMES = 31
BODY = 1_000_000


def calls(answer: int) -> int:
    """What grpc_carts.py does. Returns the pid of the process."""
    command = [sys.executable, "-m", "tests.bpf.grpc_carts", str(TIMES), str(answer)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    return process.pid


@pytest.mark.parametrize("answer", [200_003, 3_000_017])
def test_each_call_of_grpc_is_one_row_at_either_end_with_its_status(answer: int) -> None:
    """Bodies stay on the node, so they may be large, and nothing that follows them is missed."""
    with Viewed("trace_http", ring_bytes=32 << 20) as tracer:
        _, pid = in_namespace(partial(calls, answer))
        rows = [row for row in tracer.rows() + tracer.rest() if row["pid"] == pid]
        assert tracer.sent_bytes < 1_000_000
        assert tracer.lost == 0
    expected = []
    for number in range(TIMES):
        # A message has a head of 5 bytes.
        expected.append(("/shop.Carts/Get", "OK", 5 + (number if number % 10 else answer)))
        expected.append(("/shop.Carts/Fail", "NOT_FOUND", 0))
    expected += [("/shop.Carts/List", "OK", 7 * 16), ("/shop.Other/None", "UNIMPLEMENTED", 0)]
    for role in ("client", "server"):
        of_role = [row for row in rows if row["role"] == role]
        assert [(row["target"], row["grpc_status"], row["response_bytes"]) for row in of_role] == expected
    assert {(row["protocol"], row["method"], row["status"], row["reset"]) for row in rows} == {
        ("gRPC", "POST", 200, None)
    }
    assert {row["host"].partition(":")[0] for row in rows} == {network.V4}
    assert {row["grpc_message"] for row in rows if row["target"].endswith("Fail")} == {
        f"no cart {number}" for number in range(TIMES)
    }
    assert all(0 < row["latency"] < 60 * 10**9 for row in rows)


def send_large_packets() -> int:
    """Begins HTTP/2, then lets data wait for a receiver: since Linux 6.10, it is sent as two full segments at once.
    Returns the sender's port."""
    with network.listener(network.V4) as listener, socket.create_connection(listener.getsockname()) as client:
        server, _ = listener.accept()
        with server:
            client.sendall(PREFACE)
            assert server.recv(len(PREFACE)) == PREFACE
            client.settimeout(0)
            waiting, received = memoryview(bytes(BODY)), 0
            while received < BODY:
                with suppress(BlockingIOError):
                    while waiting:
                        waiting = waiting[client.send(waiting) :]
                received += len(server.recv(BODY))
            return int(client.getsockname()[1])


def test_packets_that_are_longer_than_64_kib_are_read_whole() -> None:
    with Viewed("trace_http", ring_bytes=32 << 20) as tracer:
        _, port = in_namespace(send_large_packets)
        every = packets(decode(tracer.gadget.as_sent(), "node", tracer.data()))
        sent = [packet for packet in every if packet.outgoing and packet.local_port == port]
        assert tracer.lost == 0
    assert [packet.sequence for packet in sent if packet.missing] == []
    stream = Stream()  # parts may be sent twice
    pieces = [piece for packet in sent for piece in stream.feed(packet)]
    assert b"".join(piece for piece in pieces if isinstance(piece, bytes)) == PREFACE + bytes(BODY)


def serve_http2(listener: socket.socket) -> None:
    """Answers 200 to every request of one connection."""
    sock, _ = listener.accept()
    connection = H2Connection(H2Configuration(client_side=False))
    connection.initiate_connection()
    with sock:
        sock.sendall(connection.data_to_send())
        while data := sock.recv(65536):
            for event in connection.receive_data(data):
                if isinstance(event, RequestReceived):
                    connection.send_headers(event.stream_id, [(":status", "200"), ("content-length", "0")])
                if isinstance(event, StreamEnded):
                    connection.end_stream(event.stream_id)
            sock.sendall(connection.data_to_send())


class Asker:
    """A client that waits for each answer."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection((network.V4, port), timeout=60)
        self._connection = H2Connection(H2Configuration(client_side=True))
        self._connection.initiate_connection()
        self.port = self._sock.getsockname()[1]

    def ask(self, path: str) -> None:
        stream = self._connection.get_next_available_stream_id()
        headers = [(":method", "GET"), (":scheme", "http"), (":authority", "shop"), (":path", path)]
        self._connection.send_headers(stream, headers, end_stream=True)
        while True:
            self._sock.sendall(self._connection.data_to_send())
            if any(isinstance(event, StreamEnded) for event in self._connection.receive_data(self._sock.recv(65536))):
                return

    def close(self) -> None:
        self._sock.close()


def test_a_connection_that_is_older_than_the_trace_is_joined_with_what_can_be_known() -> None:
    with network.listener(network.V4) as listener:
        threading.Thread(target=serve_http2, args=(listener,), daemon=True).start()
        asker = Asker(listener.getsockname()[1])
        for _ in range(2):  # so that settings are agreed upon
            asker.ask("/old")
        with Viewed("trace_http") as tracer:
            for path in ("/old", "/new", *["/new"] * (TIMES - 2)):
                asker.ask(path)
            rows = [row for row in tracer.rows() if row["local_port"] == asker.port]
        asker.close()
    assert [(row["method"], row["target"], row["host"], row["status"]) for row in rows] == [
        ("GET", None, None, 200),
        *[("GET", "/new", None, 200)] * (TIMES - 1),
    ]
    assert {(row["protocol"], row["role"]) for row in rows} == {("HTTP/2", "client")}
