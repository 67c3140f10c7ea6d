"""trace http: a real server and real clients over loopback, and every row that they become."""

import http.client
import os
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agent.bpf.maps import LOST_MAP_FULL
from tests.bpf import map_shares, network
from tests.bpf.network import in_namespace
from tests.bpf.test_filters import Tree, tree  # noqa: F401
from tests.bpf.viewed import Viewed

pytestmark = pytest.mark.bpf
TIMES = 31
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
BODY = 200_003
MEBIBYTES = 24


class Handler(BaseHTTPRequestHandler):
    """Answers by the path: /big with a large body, /chunks with one in chunks, /status/N with that, /never never."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/never":
            self.close_connection = True
            return
        if self.path == "/chunks":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for size in (1, 70_001, 20):
                self.wfile.write(b"%x\r\n" % size + b"c" * size + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")
            return
        status = int(self.path.rpartition("/")[2]) if self.path.startswith("/status/") else 200
        body = b"b" * (BODY if self.path == "/big" else 5)
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "99")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads it."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: str) -> None:
        self.address_family = network.FAMILIES[host]
        super().__init__((host, 0), Handler)
        self.port = int(self.server_address[1])
        threading.Thread(target=self.serve_forever, daemon=True).start()


def of(pid: int, rows: list[dict[str, Any]], role: str = "") -> list[dict[str, Any]]:
    return [row for row in rows if row["pid"] == pid and role in ("", row["role"])]


@pytest.mark.parametrize("host", [network.V4, network.V6])
def test_each_request_is_one_row_at_either_end(host: str) -> None:
    def deed() -> int:
        server = Server(host)
        connection = http.client.HTTPConnection(host, server.port)
        for number in range(TIMES):
            headers = {"Host": "shop.example", "User-Agent": "probe/1", "traceparent": TRACEPARENT}
            connection.request("GET", f"/path?n={number}", headers=headers)
            connection.getresponse().read()
        connection.close()
        return server.port

    with Viewed("trace_http") as tracer:
        pid, port = in_namespace(deed)
        rows = of(pid, tracer.rows())
        assert tracer.lost == 0
        assert of(pid, tracer.rest()) == []
    for role in ("client", "server"):
        assert [row["target"] for row in rows if row["role"] == role] == [f"/path?n={n}" for n in range(TIMES)]
    assert len(rows) == 2 * TIMES
    for row in rows:
        assert (row["method"], row["host"], row["agent"], row["status"]) == ("GET", "shop.example", "probe/1", 200)
        assert (row["request_bytes"], row["response_bytes"], row["content_type"]) == (0, 5, "text/plain")
        assert row["traceparent"] == TRACEPARENT
        assert row["remote_port" if row["role"] == "client" else "local_port"] == port
        assert (row["local"], row["remote"], row["protocol"]) == (host, host, "HTTP/1.1")
        assert 0 < row["latency"] < 10**10
    assert {row["comm"] for row in of(pid, rows, "client")} == {Path("/proc/self/comm").read_text().strip()}


def test_a_container_with_many_connections_leaves_room_for_others_and_its_own_losses_count() -> None:
    def deed() -> None:
        connection = http.client.HTTPConnection(network.V4, Server(network.V4).port)
        connection.request("GET", "/any")
        connection.getresponse().read()

    with Viewed("trace_http") as tracer:
        map_shares.fill(tracer, "gadget_socket_shares", "gadget_socket_states", share=1)
        pid, _ = in_namespace(deed)
        assert {row["role"] for row in of(pid, tracer.rows())} == {"client", "server"}
        map_shares.fill(tracer, "gadget_socket_shares", "gadget_socket_states", share=0)
        before = tracer.counters.total(LOST_MAP_FULL)
        in_namespace(deed)
        assert tracer.counters.total(LOST_MAP_FULL) > before


def test_raw_sockets_that_are_gone_take_no_room() -> None:
    """They have one entry together: their end is not seen."""
    request = struct.pack("!HHIIHHHH", 40_000, 80, 1, 1, 0x5018, 1024, 0, 0) + b"GET / HTTP/1.1\r\n\r\n"

    def deed() -> None:
        for _ in range(TIMES):
            with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
                raw.sendto(request, (network.V4, 0))

    with Viewed("trace_http") as tracer:
        before = map_shares.entries(tracer, "gadget_socket_shares", share=0)
        in_namespace(deed)
        # Other processes of this machine have a few at most.
        assert 1 <= map_shares.entries(tracer, "gadget_socket_shares", share=0) - before < TIMES // 2
        assert len(tracer.data()) > TIMES * len(request), "they are still shown"


def test_any_method_begins_a_connection() -> None:
    methods = ["PROPFIND", "LOCK", "QUERY", "M-SEARCH", "VERSION-CONTROL", "ABC"]

    def deed() -> None:
        for method in methods:
            server = Server(network.V4)
            connection = http.client.HTTPConnection(network.V4, server.port)
            connection.request(method, "/any")
            connection.getresponse().read()

    with Viewed("trace_http") as tracer:
        pid, _ = in_namespace(deed)
        rows = tracer.rows()
    for role in ("client", "server"):
        found = [(row["method"], row["target"], row["status"]) for row in of(pid, rows, role)]
        assert found == [(method, "/any", 501) for method in methods]


def test_bodies_of_all_kinds_are_passed_over_on_one_connection() -> None:
    asked = [("POST", "/big", b"p" * BODY), ("GET", "/chunks", b""), ("HEAD", "/x", b""), ("POST", "/status/404", b"q")]

    def deed() -> None:
        server = Server(network.V4)
        connection = http.client.HTTPConnection(network.V4, server.port)
        for _ in range(7):
            for method, target, body in asked:
                connection.request(method, target, body or None)
                connection.getresponse().read()

    with Viewed("trace_http") as tracer:
        pid, _ = in_namespace(deed)
        rows = tracer.rows()
        assert tracer.lost == 0
    for role in ("client", "server"):
        told = [
            (row["method"], row["target"], row["status"], row["request_bytes"], row["response_bytes"])
            for row in of(pid, rows, role)
        ]
        assert told == [
            ("POST", "/big", 200, BODY, BODY),
            ("GET", "/chunks", 200, 0, None),
            ("HEAD", "/x", 200, 0, 99),
            ("POST", "/status/404", 404, 1, 5),
        ] * 7  # fmt: skip


def test_requests_that_are_sent_at_once_have_each_their_answer() -> None:
    codes = list(range(400, 400 + TIMES))

    def deed() -> None:
        server = Server(network.V4)
        with socket.create_connection((network.V4, server.port)) as sock:
            sock.sendall(b"".join(b"GET /status/%d HTTP/1.1\r\nHost: a\r\n\r\n" % code for code in codes))
            received = b""
            while received.count(b"HTTP/1.1") < TIMES or not received.endswith(b"bbbbb"):
                received += sock.recv(1 << 16)

    with Viewed("trace_http") as tracer:
        pid, _ = in_namespace(deed)
        rows = tracer.rows()
    for role in ("client", "server"):
        told = [(row["target"], row["status"]) for row in of(pid, rows, role)]
        assert told == [(f"/status/{code}", code) for code in codes]


def test_a_head_in_many_packets_is_read() -> None:
    def deed() -> None:
        server = Server(network.V4)
        with socket.create_connection((network.V4, server.port)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            head = b"GET /x HTTP/1.1\r\nHost: a.example\r\nCookie: " + b"c" * 9000 + b"\r\n\r\n"
            for start in range(0, len(head), 700):
                sock.sendall(head[start : start + 700])
            sock.recv(1000)

    with Viewed("trace_http") as tracer:
        pid, _ = in_namespace(deed)
        rows = of(pid, tracer.rows())
    assert sorted((row["role"], row["target"], row["host"]) for row in rows) == [
        ("client", "/x", "a.example"),
        ("server", "/x", "a.example"),
    ]


def test_a_request_that_the_server_does_not_answer_is_reported_when_the_connection_ends() -> None:
    def deed() -> None:
        server = Server(network.V4)
        for _ in range(TIMES):
            with socket.create_connection((network.V4, server.port)) as sock:
                sock.sendall(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n")
                assert sock.recv(10) == b""

    with Viewed("trace_http") as tracer:
        pid, _ = in_namespace(deed)
        rows = of(pid, tracer.rows(), "client")
    assert [(row["target"], row["status"], row["response_bytes"]) for row in rows] == [("/never", 0, None)] * TIMES


def test_a_request_without_an_answer_is_reported_after_the_wait() -> None:
    with Viewed("trace_http", wait=30) as tracer, network.listener(network.V4) as server:
        sock = socket.create_connection(server.getsockname())
        port = sock.getsockname()[1]
        sock.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        assert [row for row in tracer.rows() if row["local_port"] == port] == []
        (row,) = [row for row in tracer.rows(later=31) if row["local_port"] == port]
        sock.close()
    assert (row["target"], row["status"], row["latency"]) == ("/slow", 0, 30 * 10**9)


def test_other_protocols_and_ports_make_no_rows() -> None:
    def deed() -> None:
        server = Server(network.V4)
        connection = http.client.HTTPConnection(network.V4, server.port)
        connection.request("GET", "/")
        connection.getresponse().read()
        with network.listener(network.V4) as other, socket.create_connection(other.getsockname()) as sock:
            sock.sendall(b"220 mail.example ESMTP\r\nPOST office\r\n")

    with Viewed("trace_http", port=1) as tracer:
        pid, _ = in_namespace(deed)
        assert of(pid, tracer.rows()) == []
    with Viewed("trace_http") as tracer:
        pid, _ = in_namespace(deed)
        assert {row["target"] for row in of(pid, tracer.rows() + tracer.rest())} == {"/"}


def test_a_large_body_of_http_2_fills_no_ring_and_the_next_request_is_seen() -> None:
    post, get, status = b"\x83\x86\x84", b"\x82\x86\x84", b"\x88"  # RFC 7541, appendix A

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload

    head = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 4, 1, post)
    data = frame(0, 0, 1, bytes(16384)) * 64
    last, second = frame(0, 1, 1, b""), frame(1, 5, 3, get)

    def answer(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        with sock:
            sock.sendall(frame(4, 0, 0, b""))
            left = len(head) + MEBIBYTES * len(data) + len(last)
            while left:
                left -= len(sock.recv(min(left, 1 << 20)))
            sock.sendall(frame(1, 5, 1, status))
            sock.recv(len(second), socket.MSG_WAITALL)
            sock.sendall(frame(1, 5, 3, status))
            sock.recv(1)

    def deed() -> None:
        with network.listener(network.V4) as listener:
            thread = threading.Thread(target=answer, args=(listener,))
            thread.start()
            with socket.create_connection(listener.getsockname()) as sock:
                sock.sendall(head)
                for _ in range(MEBIBYTES):
                    sock.sendall(data)
                sock.sendall(last)
                answered = len(frame(4, 0, 0, b"") + frame(1, 5, 1, status))
                assert len(sock.recv(answered, socket.MSG_WAITALL)) == answered
                sock.sendall(second)
                sock.recv(len(frame(1, 5, 3, status)), socket.MSG_WAITALL)
            thread.join()

    with Viewed("trace_http") as tracer:
        pid, _ = in_namespace(deed)
        rows = of(pid, tracer.rows() + tracer.rest(), "client")
        assert tracer.lost == 0
    assert [(row["method"], row["status"]) for row in rows] == [("POST", 200), ("GET", 200)]


def test_a_request_that_came_before_accept_is_of_the_process_that_accepts() -> None:
    late = f"late{os.getpid()}"  # others may run this test, too
    request, answer = b"GET /late HTTP/1.1\r\nHost: h\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    def deed() -> None:
        network.accept_late(network.V4, request, answer, late)
        network.accept_late(network.V4, request.replace(b"late", b"other"), answer, "other")

    with Viewed("trace_http", comm=late) as tracer:
        in_namespace(deed)
        rows = tracer.rows() + tracer.rest()
    assert [(row["comm"], row["method"], row["host"], row["target"], row["status"]) for row in rows] == [
        (late, "GET", "h", "/late", 200)
    ]
    assert rows[0]["latency"] is not None


def test_a_connection_is_one_also_when_the_server_has_moved_to_another_cgroup(tree: Tree) -> None:  # noqa: F811
    with Viewed("trace_http") as tracer:

        def deed() -> None:
            with (
                network.listener(network.V4) as server,
                socket.create_connection(server.getsockname()) as client,
            ):
                client.sendall(b"GET /moved HTTP/1.1\r\nHost: h\r\n\r\n")
                (tree.container / "cgroup.procs").write_text("0")
                accepted, _ = server.accept()
                with accepted:
                    accepted.recv(1000)
                    accepted.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    client.recv(1000)

        pid, _ = in_namespace(deed)
        rows = of(pid, tracer.rows(), "server")
    assert [(row["method"], row["target"], row["status"]) for row in rows] == [("GET", "/moved", 200)]
