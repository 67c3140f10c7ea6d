"""trace tcp: real connections over loopback, each a prime number of times, and every field of what was seen."""

import errno
import multiprocessing
import os
import socket
import struct
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.bpf import network
from tests.bpf.network import address, in_namespace
from tests.bpf.tracer import Tracer
from tests.bpf.uring import Uring

pytestmark = pytest.mark.bpf
TIMES = 31
SENT, RECEIVED = 70_001, 301
CONNECT, ACCEPT, CLOSE = 1, 2, 3
NO_ANSWER = 5
COARSE = 6
"""CLOCK_MONOTONIC_COARSE"""
UNKNOWN = (1 << 64) - 1
COMM = Path("/proc/self/comm").read_text().strip()
HOSTS = [network.V4, network.V6, "::ffff:127.0.0.1"]
SHOWN = {"::ffff:127.0.0.1": network.V4}


def receive(sock: socket.socket, count: int) -> None:
    while count:
        count -= len(sock.recv(count))


def talk(host: str, times: int) -> list[tuple[int, int]]:
    """Connects, accepts, sends both ways and closes. Returns both ends' ports."""
    ports = []
    with network.listener(host) as server:
        for _ in range(times):
            client = socket.create_connection(server.getsockname()[:2])
            accepted, _ = server.accept()
            ports.append((client.getsockname()[1], server.getsockname()[1]))
            client.sendall(bytes(SENT))
            receive(accepted, SENT)
            accepted.sendall(bytes(RECEIVED))
            receive(client, RECEIVED)
            client.close()
            assert accepted.recv(1) == b""
            accepted.close()
    return ports


def of(pid: int, tracer: Tracer, operation: int | None = None) -> list[dict[str, Any]]:
    return [record for record in tracer.records() if record["pid"] == pid and operation in (None, record["operation"])]


def ends(record: dict[str, Any]) -> tuple[str, int, str, int]:
    return address(record["local"]), record["local_port"], address(record["remote"]), record["remote_port"]


@pytest.mark.parametrize("host", HOSTS)
def test_each_connection_is_made_accepted_and_closed_once_at_both_ends(host: str) -> None:
    with Tracer("trace_tcp") as tracer:
        pid, ports = in_namespace(lambda: talk(host, TIMES))
        records = of(pid, tracer)
        assert tracer.lost == 0
    shown = SHOWN.get(host, host)
    to_server = [(shown, client, shown, server) for client, server in ports]
    to_client = [(shown, server, shown, client) for client, server in ports]
    assert [ends(record) for record in records if record["operation"] == CONNECT] == to_server
    assert [ends(record) for record in records if record["operation"] == ACCEPT] == to_client
    closed = [record for record in records if record["operation"] == CLOSE]
    assert sorted(map(ends, closed)) == sorted(to_server + to_client)
    assert len(records) == 4 * TIMES
    assert {record["errno"] for record in records} == {0}
    assert {record["family"] for record in records} == {network.FAMILIES[host]}


def test_both_ends_report_the_same_number_of_the_syn() -> None:
    with Tracer("trace_tcp") as tracer:
        pid, _ = in_namespace(lambda: talk(network.V4, TIMES))
        records = of(pid, tracer)
    numbers = {
        kind: [record["initial_sequence"] for record in records if record["operation"] == kind]
        for kind in (CONNECT, ACCEPT, CLOSE)
    }
    assert numbers[CONNECT] == numbers[ACCEPT]
    assert len(set(numbers[CONNECT]) - {0}) == TIMES
    assert set(numbers[CLOSE]) == {0}


def test_the_end_reports_bytes_both_ways_without_counting_syn_and_fin() -> None:
    with Tracer("trace_tcp", close=True) as tracer:
        pid, ports = in_namespace(lambda: talk(network.V4, TIMES))
        records = of(pid, tracer)
    servers = {server for _, server in ports}
    assert len(records) == 2 * TIMES
    for record in records:
        told = (record["sent"], record["received"])
        assert told == ((RECEIVED, SENT) if record["local_port"] in servers else (SENT, RECEIVED))


def test_durations_are_those_of_handshake_queue_and_life() -> None:
    with Tracer("trace_tcp") as tracer:
        pid, _ = in_namespace(lambda: talk(network.V4, 1))
        connect, accept, *closes = of(pid, tracer)
    since_it_began = connect["duration"] + closes[0]["timestamp"] - connect["timestamp"]
    assert 0 < connect["duration"] < UNKNOWN
    assert 0 < accept["duration"] < accept["timestamp"] - connect["timestamp"] + connect["duration"]
    assert 0 < closes[0]["duration"] < since_it_began + connect["duration"]
    assert (connect["sent"], connect["received"]) == (UNKNOWN, UNKNOWN)


def test_a_record_has_its_process_and_the_descriptor() -> None:
    def deed() -> tuple[int, int]:
        with network.listener(network.V4) as server, socket.socket() as client:
            client.connect(server.getsockname())
            accepted, _ = server.accept()
            with accepted:
                return client.fileno(), accepted.fileno()

    with Tracer("trace_tcp") as tracer:
        pid, (client, accepted) = in_namespace(deed)
        records = of(pid, tracer)
    assert [record["fd"] for record in records] == [client, accepted, -1, -1]
    assert {record["ppid"] for record in records} == {os.getpid()}
    assert {record["comm"] for record in records} == {COMM}
    assert {(record["uid"], record["gid"]) for record in records} == {(os.getuid(), os.getgid())}


@pytest.mark.parametrize("host", [network.V4, network.V6])
def test_each_refused_connection_is_reported_once(host: str) -> None:
    def deed() -> int:
        port = network.unused_port(host)
        for _ in range(TIMES):
            with socket.socket(network.FAMILIES[host]) as sock:
                assert sock.connect_ex((host, port)) == errno.ECONNREFUSED
        return port

    with Tracer("trace_tcp", failed=True) as tracer:
        pid, port = in_namespace(deed)
        records = of(pid, tracer)
    told = [
        (record["operation"], record["errno"], address(record["remote"]), record["remote_port"]) for record in records
    ]
    assert told == [(CONNECT, errno.ECONNREFUSED, host, port)] * TIMES


def test_a_refusal_that_no_call_waits_for_is_reported_once() -> None:
    def deed() -> None:
        port = network.unused_port(network.V4)
        with socket.socket() as sock:
            sock.setblocking(False)
            assert sock.connect_ex((network.V4, port)) == errno.EINPROGRESS
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED

    with Tracer("trace_tcp") as tracer:
        pid, _ = in_namespace(deed)
        records = of(pid, tracer)
    assert [(record["operation"], record["errno"]) for record in records] == [(CONNECT, errno.ECONNREFUSED)]


def test_a_connect_without_a_route_is_reported_with_the_address_that_was_asked_for() -> None:
    def deed() -> None:
        for _ in range(TIMES):
            with socket.socket(socket.AF_INET6) as sock:
                assert sock.connect_ex(("2001:db8::7", 443)) == errno.ENETUNREACH

    with Tracer("trace_tcp") as tracer:
        pid, _ = in_namespace(deed)
        records = of(pid, tracer)
    told = [
        (record["operation"], record["errno"], address(record["remote"]), record["remote_port"]) for record in records
    ]
    assert told == [(CONNECT, errno.ENETUNREACH, "2001:db8::7", 443)] * TIMES


def test_a_reset_is_an_end_with_its_reason() -> None:
    def deed() -> int:
        with network.listener(network.V4) as server:
            client = socket.create_connection(server.getsockname())
            accepted, _ = server.accept()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            accepted.close()
            return int(server.getsockname()[1])

    with Tracer("trace_tcp", close=True) as tracer:
        pid, port = in_namespace(deed)
        records = of(pid, tracer)
    assert [(record["errno"], record["local_port"] == port) for record in records] == [
        (0, False),
        (errno.ECONNRESET, True),
    ]


def test_a_connect_given_up_by_its_program_is_cancelled() -> None:
    def deed() -> None:
        with network.listener(network.V4) as server:
            server.listen(0)
            # The first one fills the queue, and what comes then gets no answer.
            with socket.create_connection(server.getsockname()), socket.socket() as sock:
                sock.setblocking(False)
                assert sock.connect_ex(server.getsockname()) == errno.EINPROGRESS

    with Tracer("trace_tcp", connect=True) as tracer:
        pid, _ = in_namespace(deed)
        records = of(pid, tracer)
    assert [(record["errno"], record["end"]) for record in records] == [(0, 0), (errno.ECANCELED, NO_ANSWER)]
    assert 0 < records[1]["duration"] < 10**10


def test_a_connect_given_up_that_is_older_than_the_trace_has_its_duration_and_its_syns() -> None:
    def deed(begun: Any, go_on: Any) -> None:
        with network.listener(network.V4) as server:
            server.listen(0)
            with socket.create_connection(server.getsockname()), socket.socket() as sock:
                sock.setblocking(False)
                sock.connect_ex(server.getsockname())
                begun.set()
                assert go_on.wait(60)
                time.sleep(1.3)

    begun, go_on = multiprocessing.get_context("fork").Event(), multiprocessing.get_context("fork").Event()
    with ThreadPoolExecutor() as threads:
        done = threads.submit(in_namespace, lambda: deed(begun, go_on))
        assert begun.wait(60)
        with Tracer("trace_tcp", connect=True) as tracer:
            go_on.set()
            pid, _ = done.result()
            (record,) = of(pid, tracer)
    assert (record["errno"], record["end"]) == (errno.ECANCELED, NO_ANSWER)
    assert 1_200_000_000 < record["duration"] < 60_000_000_000
    assert record["retransmits"] >= 1


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("reject", errno.ECONNREFUSED), ("reject with icmp type host-unreachable", errno.EHOSTUNREACH)],
)
@pytest.mark.parametrize("is_asked", [True, False])
def test_a_connect_rejected_by_icmp_has_the_error_that_its_program_gets(
    rule: str, expected: int, is_asked: bool
) -> None:
    def deed() -> int:
        chain = "add table ip t; add chain ip t c { type filter hook input priority 0; }"
        subprocess.run(["nft", f"{chain}; add rule ip t c tcp dport 9 {rule}"], check=True)
        with socket.socket() as sock:
            sock.setblocking(False)
            assert sock.connect_ex((network.V4, 9)) == errno.EINPROGRESS
            return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if is_asked else expected

    with Tracer("trace_tcp", connect=True) as tracer:
        pid, error = in_namespace(deed)
        (record,) = of(pid, tracer)
    assert (record["errno"], error, record["end"]) == (expected, expected, 0)
    assert 0 < record["duration"] < 10**10


def test_the_end_of_a_connection_says_how_long_it_was_idle() -> None:
    def deed() -> None:
        with (
            network.listener(network.V4) as server,
            socket.create_connection(server.getsockname()) as client,
            server.accept()[0] as accepted,
        ):
            time.sleep(0.5)
            client.sendall(b"x")
            receive(accepted, 1)
            time.sleep(1.0)

    tick = round(time.clock_getres(COARSE) * 1e9)
    with Tracer("trace_tcp", variables={"gadget_node_tick_ns": tick}, close=True) as tracer:
        pid, _ = in_namespace(deed)
        idle = [record["idle"] for record in of(pid, tracer)]
    assert len(idle) == 2
    # A tick takes up to 10 ms.
    assert all(980_000_000 < each < 1_450_000_000 for each in idle)


def test_accept_without_a_client_is_not_reported_but_other_failures_are() -> None:
    def deed() -> int:
        import resource

        with network.listener(network.V4) as server:
            server.setblocking(False)
            with pytest.raises(BlockingIOError):
                server.accept()
            with socket.create_connection(server.getsockname()) as client:
                resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, client.fileno() + 1))
                with pytest.raises(OSError, match="Too many open files"):
                    server.accept()
            return int(server.getsockname()[1])

    with Tracer("trace_tcp", accept=True) as tracer:
        pid, port = in_namespace(deed)
        (record,) = of(pid, tracer)
    assert (record["errno"], ends(record)) == (
        errno.EMFILE,
        (network.V4, port, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 0),
    )


def test_a_connection_older_than_the_trace_has_its_owner_and_no_duration() -> None:
    with network.listener(network.V4) as server, socket.create_connection(server.getsockname()) as client:
        accepted, _ = server.accept()
        port = client.getsockname()[1]
        with accepted, Tracer("trace_tcp", close=True, port=port) as tracer:
            client.close()
            accepted.close()
            records = tracer.records()
    assert [(record["pid"], record["comm"], record["duration"]) for record in records] == [
        (os.getpid(), COMM, UNKNOWN)
    ] * 2


def test_a_connection_that_was_not_accepted_ends_without_a_process() -> None:
    def deed() -> int:
        with network.listener(network.V4) as server:
            port: int = server.getsockname()[1]
            client = socket.create_connection(server.getsockname())
        # The listener is gone, and with it what waited there.
        client.close()
        return port

    with Tracer("trace_tcp") as tracer:
        pid, port = in_namespace(deed)
        records = tracer.records()
    (record,) = [record for record in records if record["local_port"] == port]
    (connect,) = [record for record in records if record["pid"] == pid and record["operation"] == CONNECT]
    assert record["cgroup"] == connect["cgroup"]
    head = [record[name] for name in ("pid", "tid", "ppid", "comm", "parent_comm", "gid")]
    assert head == [0, 0, 0, "", "", 0xFFFFFFFF]
    assert record["uid"] == os.getuid()


def test_the_port_filter_takes_either_end() -> None:
    with network.listener(network.V4) as server:
        port: int = server.getsockname()[1]
        with Tracer("trace_tcp", port=port) as tracer:
            in_namespace(lambda: talk(network.V4, 1))
            for _ in range(TIMES):
                with socket.create_connection(server.getsockname()):
                    server.accept()[0].close()
            records = of(os.getpid(), tracer)
    assert len(records) == 4 * TIMES
    assert {port in (record["local_port"], record["remote_port"]) for record in records} == {True}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_address_filter_takes_connections_with_that_end(host: str) -> None:
    other = "127.0.0.1" if host == "::1" else "::1"
    with Tracer("trace_tcp", pid=os.getpid(), address=host) as tracer:
        talk(host, TIMES)
        talk(other, 2)
        records = tracer.records()
    assert {ends(record)[0] for record in records} == {host}
    assert len([record for record in records if record["operation"] == CONNECT]) == TIMES


@pytest.mark.parametrize(("option", "operation"), [("connect", CONNECT), ("accept", ACCEPT), ("close", CLOSE)])
def test_one_kind_of_event_can_be_chosen(option: str, operation: int) -> None:
    with Tracer("trace_tcp", **{option: True}) as tracer:
        pid, _ = in_namespace(lambda: talk(network.V4, TIMES))
        assert {record["operation"] for record in of(pid, tracer)} == {operation}


def test_a_filter_on_a_process_holds_for_events_in_interrupts() -> None:
    with Tracer("trace_tcp", pid=1) as tracer:
        in_namespace(lambda: talk(network.V4, TIMES))
        assert tracer.records() == []


def test_what_io_uring_accepts_is_seen_once() -> None:
    def deed() -> None:
        with Uring() as ring, network.listener(network.V4) as server:
            for _ in range(TIMES):
                with socket.create_connection(server.getsockname()):
                    os.close(ring.accept(server.fileno()))

    with Tracer("trace_tcp", accept=True) as tracer:
        if "accept_of_uring" not in tracer.programs:
            pytest.skip("this kernel has no fexit")
        pid, _ = in_namespace(deed)
        records = of(pid, tracer)
    assert [(record["operation"], record["fd"]) for record in records] == [(ACCEPT, -1)] * TIMES


def test_what_io_uring_connects_sends_and_receives_is_the_processs() -> None:
    def deed() -> None:
        with Uring() as ring, network.listener(network.V4) as server:
            where = server.getsockname()
            to = struct.pack("<H", socket.AF_INET) + struct.pack(">H4s8x", where[1], socket.inet_aton(where[0]))
            for _ in range(TIMES):
                with socket.socket() as client:
                    assert ring.connect(client.fileno(), to) == 0
                    accepted, _ = server.accept()
                    with accepted:
                        assert ring.send(client.fileno(), b"question") == 8
                        assert ring.receive(accepted.fileno(), 8) == b"question"
                        assert ring.send(accepted.fileno(), b"answer") == 6
                        assert ring.receive(client.fileno(), 6) == b"answer"

    with Tracer("trace_tcp") as tracer:
        pid, _ = in_namespace(deed)
        records = of(pid, tracer)
        assert tracer.lost == 0
    assert len([record for record in records if record["operation"] == CONNECT]) == TIMES
    closed = [(record["sent"], record["received"]) for record in records if record["operation"] == CLOSE]
    assert sorted(closed) == [(6, 8)] * TIMES + [(8, 6)] * TIMES


SYN, OPEN, REPORT = 4, 5, 6


def test_with_reports_the_first_packet_is_reported_before_there_is_an_answer() -> None:
    with Tracer("trace_tcp", reports=True, report_interval=3_600_000) as tracer:
        pid, ports = in_namespace(lambda: talk(network.V4, TIMES))
        records = of(pid, tracer)
    assert [ends(record) for record in records if record["operation"] == SYN] == [
        (network.V4, client, network.V4, server) for client, server in ports
    ]
    first = next(record for record in records if record["operation"] == SYN)
    assert (first["initiator"], first["sent"], first["received"]) == (1, 0, 0)
    assert len(records) == 5 * TIMES


def test_with_reports_a_connection_that_is_there_already_is_reported_once() -> None:
    with network.listener(network.V4) as server, socket.create_connection(server.getsockname()) as client:
        accepted, _ = server.accept()
        here, there = client.getsockname(), server.getsockname()
        with accepted, Tracer("trace_tcp", reports=True) as tracer:
            records = [record for record in tracer.at_start if record["operation"] == OPEN]
    found = [ends(record) for record in records if record["pid"] == os.getpid()]
    assert found.count((here[0], here[1], there[0], there[1])) == 1
    assert found.count((there[0], there[1], here[0], here[1])) == 1


def test_with_reports_an_older_attempt_without_an_answer_is_a_syn() -> None:
    with network.listener(network.V4) as server:
        server.listen(0)
        # The first one fills the queue, and what comes then gets no answer.
        with socket.create_connection(server.getsockname()), socket.socket() as sock:
            sock.setblocking(False)
            assert sock.connect_ex(server.getsockname()) == errno.EINPROGRESS
            with Tracer("trace_tcp", reports=True) as tracer:
                records = tracer.at_start
            port = sock.getsockname()[1]
    found = [record for record in records if record["pid"] == os.getpid() and record["local_port"] == port]
    assert [(record["operation"], record["received_segments"]) for record in found] == [(SYN, 0)]


def test_with_reports_a_connection_reports_its_bytes_while_it_lives() -> None:
    def deed() -> None:
        with network.listener(network.V4) as server, socket.create_connection(server.getsockname()) as client:
            accepted, _ = server.accept()
            with accepted:
                for _ in range(TIMES):
                    client.sendall(bytes(SENT))
                    receive(accepted, SENT)

    with Tracer("trace_tcp", reports=True, report_interval=0) as tracer:
        pid, _ = in_namespace(deed)
        reports = of(pid, tracer, REPORT)
    ours = [record["sent"] for record in reports if record["initiator"] == 1]
    assert len(ours) > TIMES
    assert ours == sorted(ours)
    # A packet is told when it leaves, before its own bytes are counted.
    assert 0 < ours[-1] <= TIMES * SENT
    assert max(record["received"] for record in reports if record["initiator"] == 2) == TIMES * SENT


def test_the_end_has_the_process_and_the_result() -> None:
    def deed() -> None:
        with network.listener(network.V4) as server:
            client = socket.create_connection(server.getsockname())
            accepted, _ = server.accept()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            with pytest.raises(ConnectionResetError):
                accepted.recv(1)
            accepted.close()

    with Tracer("trace_tcp", close=True) as tracer:
        pid, _ = in_namespace(lambda: (talk(network.V4, 1), deed()))
        records = of(pid, tracer)
    fins, resets = records[:2], records[2:]
    assert {(record["initiator"], record["end"]) for record in fins} == {(1, 1), (2, 1)}
    assert {(record["initiator"], record["end"]) for record in resets} == {(1, 3), (2, 2)}
    assert all(0 < record["rtt"] < UNKNOWN for record in fins)
    assert all(record["sent_segments"] and record["received_segments"] for record in fins)
