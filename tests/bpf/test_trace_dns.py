"""trace dns: a real server and real questions over loopback, and every row that they become."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import pytest

from tests.bpf import network
from tests.bpf.dns_server import ADDRESS, DnsServer
from tests.bpf.network import in_namespace
from tests.bpf.uring import Uring
from tests.bpf.viewed import Viewed

pytestmark = pytest.mark.bpf
TIMES = 31
WAIT = 5


def ask(name: str, host: str, port: int = 53) -> None:
    dns.query.udp(dns.message.make_query(name, "A"), host, port=port, timeout=60)


def of(pid: int, rows: list[dict[str, Any]], role: str = "") -> list[dict[str, Any]]:
    return [row for row in rows if row["pid"] == pid and role in ("", row["role"])]


@pytest.mark.parametrize("host", [network.V4, network.V6])
def test_each_question_is_one_row_at_either_end(host: str) -> None:
    def deed() -> None:
        DnsServer(host)
        for number in range(TIMES):
            ask(f"n{number}.example", host)

    with Viewed("trace_dns") as tracer:
        pid, _ = in_namespace(deed)
        rows = of(pid, tracer.rows())
        assert tracer.lost == 0
    comm = Path("/proc/self/comm").read_text().strip()
    names = [f"n{number}.example" for number in range(TIMES)]
    assert [row["name"] for row in rows if row["role"] == "client"] == names
    assert [row["name"] for row in rows if row["role"] == "server"] == names
    assert len(rows) == 2 * TIMES
    for row in rows:
        assert (row["type"], row["rcode"], row["addresses"]) == ("A", "NOERROR", [ADDRESS])
        assert (row["server"], row["server_port"], row["client"]) == (host, 53, host)
        assert (row["protocol"], row["retries"], row["answers"]) == ("UDP", 0, [f"A {ADDRESS}"])
        assert row["flags"] == "qr rd"
        assert 0 < row["latency"] < 10**10
        assert row["comm"] == comm
        assert (row["ppid"], row["uid"]) == (os.getpid(), 0)


def test_a_server_takes_less_time_than_its_client_waits() -> None:
    def deed() -> None:
        DnsServer(network.V4)
        ask("one.example", network.V4)

    with Viewed("trace_dns") as tracer:
        pid, _ = in_namespace(deed)
        rows = of(pid, tracer.rows())
    latency = {row["role"]: row["latency"] for row in rows}
    assert latency["server"] < latency["client"]


def test_a_name_that_does_not_exist_has_its_code() -> None:
    def deed() -> None:
        DnsServer(network.V4)
        for _ in range(TIMES):
            ask("nx.example", network.V4)

    with Viewed("trace_dns") as tracer:
        pid, _ = in_namespace(deed)
        rows = of(pid, tracer.rows(), "client")
    assert [(row["rcode"], row["rcode_raw"], row["addresses"]) for row in rows] == [("NXDOMAIN", 3, [])] * TIMES


def test_questions_without_an_answer_are_reported_after_the_wait() -> None:
    def deed() -> None:
        DnsServer(network.V4)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for number in range(TIMES):
                sock.sendto(dns.message.make_query("silent.example", "AAAA", id=number).to_wire(), (network.V4, 53))

    with Viewed("trace_dns", wait=WAIT) as tracer:
        pid, _ = in_namespace(deed)
        assert of(pid, tracer.rows()) == []
        rows = of(pid, tracer.rows(later=WAIT), "client")
        assert tracer.rest() == []
    told = [(row["id"], row["rcode"], row["type"], row["latency"], row["size"]) for row in rows]
    assert told == [(number, "NOANSWER", "AAAA", WAIT * 10**9, None) for number in range(TIMES)]


def test_questions_that_are_open_at_the_end_are_reported_with_the_time_they_have_waited() -> None:
    def deed() -> None:
        DnsServer(network.V4)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(dns.message.make_query("silent.example", "A").to_wire(), (network.V4, 53))

    with Viewed("trace_dns", wait=WAIT) as tracer:
        pid, _ = in_namespace(deed)
        assert of(pid, tracer.rows()) == []
        (row,) = of(pid, tracer.rest(), "client")
    assert row["rcode"] == "NOANSWER"
    assert 0 < row["latency"] < WAIT * 10**9


def test_asking_again_is_the_same_question() -> None:
    def deed() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            wire = dns.message.make_query("late.example", "A").to_wire()
            sock.connect((network.V4, 53))
            DnsServer(network.V4, 53)
            time.sleep(0.01)
            silent = dns.message.make_query("silent.example", "A").to_wire()
            for _ in range(3):
                sock.send(silent)
            sock.send(wire)
            sock.recv(512)

    with Viewed("trace_dns") as tracer:
        pid, _ = in_namespace(deed)
        rows = of(pid, tracer.rows(later=WAIT), "client")
    assert [(row["name"], row["retries"]) for row in rows] == [("late.example", 0), ("silent.example", 2)]


@pytest.mark.parametrize("piece", [1, 7, 1 << 16])
def test_over_tcp_messages_are_put_together_from_their_segments(piece: int) -> None:
    def deed() -> None:
        DnsServer(network.V4, piece=piece)
        with socket.create_connection((network.V4, 53)) as sock, sock.makefile("rb") as file:
            wires = [dns.message.make_query(f"n{number}.example", "A").to_wire() for number in range(TIMES)]
            sock.sendall(b"".join(len(wire).to_bytes(2) + wire for wire in wires))
            for _ in wires:
                file.read(int.from_bytes(file.read(2)))

    with Viewed("trace_dns") as tracer:
        pid, _ = in_namespace(deed)
        rows = of(pid, tracer.rows())
    for role in ("client", "server"):
        told = [(row["name"], row["rcode"], row["protocol"]) for row in rows if row["role"] == role]
        assert told == [(f"n{number}.example", "NOERROR", "TCP") for number in range(TIMES)]


def test_a_large_answer_is_whole() -> None:
    def deed() -> None:
        DnsServer(network.V4)
        for _ in range(3):
            dns.query.tcp(dns.message.make_query("big.example", "TXT"), network.V4, timeout=60)

    with Viewed("trace_dns") as tracer:
        pid, _ = in_namespace(deed)
        rows = of(pid, tracer.rows(), "client")
    assert [(len(row["answers"]), row["size"] > 8192) for row in rows] == [(35, True)] * 3


def test_only_the_port_that_is_asked_for_is_examined() -> None:
    def deed() -> None:
        DnsServer(network.V4)
        DnsServer(network.V4, 5300)
        for _ in range(TIMES):
            ask("a.example", network.V4)
            ask("b.example", network.V4, 5300)

    with Viewed("trace_dns", port=5300) as tracer:
        pid, _ = in_namespace(deed)
        rows = of(pid, tracer.rows(), "client")
    assert [(row["name"], row["server_port"]) for row in rows] == [("b.example", 5300)] * TIMES


def test_bytes_that_are_not_dns_are_malformed() -> None:
    def deed() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"hello", (network.V4, 53))

    with Viewed("trace_dns") as tracer:
        pid, _ = in_namespace(deed)
        (row,) = of(pid, tracer.rows())
    assert (row["rcode"], row["name"], row["latency"]) == ("MALFORMED", None, None)


def test_sockets_that_are_older_than_the_trace_have_their_process() -> None:
    code = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.connect(("127.0.0.1", 53))
print(flush=True)
sys.stdin.readline()
try:
    sock.send(bytes.fromhex("00070100000100000000000001610000010001"))
except OSError:
    pass
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    with Viewed("trace_dns") as tracer:
        process.communicate(b"\n")
        tracer.rows()
        (row,) = of(process.pid, tracer.rest())
    assert (row["id"], row["name"], row["rcode"]) == (7, "a", "NOANSWER")
    assert row["comm"].startswith("python")


def test_a_question_that_io_uring_sends_is_the_processs() -> None:
    def deed() -> None:
        DnsServer(network.V4)
        with Uring() as ring, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect((network.V4, 53))
            question = dns.message.make_query("uring.example", "A").to_wire()
            assert ring.send(sock.fileno(), question) == len(question)
            assert ring.receive(sock.fileno(), 512)

    with Viewed("trace_dns") as tracer:
        pid, _ = in_namespace(deed)
        rows = of(pid, tracer.rows(), "client")
    assert [(row["name"], row["rcode"]) for row in rows] == [("uring.example", "NOERROR")]


def test_a_process_filter_leaves_the_others_alone() -> None:
    def deed() -> None:
        DnsServer(network.V4)
        ask("a.example", network.V4)

    with Viewed("trace_dns", pid=1) as tracer:
        in_namespace(deed)
        assert tracer.rows() == []
