"""`kubectl gadget flows` with real sockets on this machine, counted exactly."""

import re
import signal
import socket
import struct
import subprocess
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.bpf import network
from tests.bpf.uring import Uring
from tests.flows.command import COMMAND, flows
from tests.gadget_run import until_under_way

pytestmark = pytest.mark.bpf
HERE = ("--local", "--host", "--loopback")
TIMES, SENT, RECEIVED = 31, 7001, 301


def talk(host: str) -> list[tuple[int, int]]:
    """Connects, talks and closes a prime number of times. Returns the ports of both ends."""
    ports = []
    with network.listener(host) as server:
        for _ in range(TIMES):
            client = socket.create_connection(server.getsockname()[:2])
            accepted, _ = server.accept()
            ports.append((client.getsockname()[1], server.getsockname()[1]))
            client.sendall(bytes(SENT))
            received = 0
            while received < SENT:
                received += len(accepted.recv(65536))
            accepted.sendall(bytes(RECEIVED))
            received = 0
            while received < RECEIVED:
                received += len(client.recv(65536))
            client.close()
            accepted.recv(1)
            accepted.close()
    return ports


@pytest.mark.parametrize("host", [network.V4, network.V6, "::ffff:127.0.0.1"])
def test_each_connection_is_one_flow_with_both_processes_and_exact_bytes(host: str) -> None:
    with flows(*HERE) as events:
        pid, ports = network.in_namespace(lambda: talk(host))
    mine = [event for event in events if event["source"]["pid"] == pid and event["protocol"] == "TCP"]
    began = [event for event in mine if event["kind"] == "new"]
    ended = [event for event in mine if event["kind"] == "close"]
    ends = [(event["source"]["port"], event["destination"]["port"]) for event in began]
    assert ends == ports
    assert len(ended) == TIMES
    assert {(event["sent"], event["received"]) for event in ended} == {(SENT, RECEIVED)}
    assert {event["destination"]["pid"] for event in ended} == {pid}
    assert {tuple(event["seen_by"]) for event in ended} == {("client", "server")}
    assert Counter(event["verdict"] for event in mine) == {"FORWARDED": len(mine)}


def talk_by_ring() -> list[tuple[int, int]]:
    """As talk(), by requests of io_uring alone, from connect() and accept() on."""
    ports = []
    with Uring() as ring, network.listener(network.V4) as server:
        port = server.getsockname()[1]
        address = struct.pack("!2xH4s8x", port, socket.inet_aton(network.V4))
        for _ in range(TIMES):
            with socket.socket() as client:
                assert ring.connect(client.fileno(), struct.pack("=H", socket.AF_INET) + address[2:]) == 0
                with socket.socket(fileno=ring.accept(server.fileno())) as accepted:
                    ports.append((client.getsockname()[1], port))
                    assert ring.send(client.fileno(), bytes(SENT)) == SENT
                    assert len(ring.receive(accepted.fileno(), SENT)) == SENT
                    assert ring.send(accepted.fileno(), bytes(RECEIVED)) == RECEIVED
                    assert len(ring.receive(client.fileno(), RECEIVED)) == RECEIVED
    return ports


def test_connections_of_io_uring_are_flows_with_exact_bytes() -> None:
    """Who accepted is known where the kernel has fexit."""
    with flows(*HERE) as events:
        pid, ports = network.in_namespace(talk_by_ring)
    mine = [event for event in events if event["source"]["pid"] == pid and event["protocol"] == "TCP"]
    ended = [event for event in mine if event["kind"] == "close"]
    assert [(event["source"]["port"], event["destination"]["port"]) for event in ended] == ports
    assert {(event["sent"], event["received"]) for event in ended} == {(SENT, RECEIVED)}
    assert {event["destination"]["pid"] for event in ended} <= {pid, None}


def test_each_udp_flow_is_one() -> None:
    def deed() -> list[int]:
        ports = []
        with ExitStack() as open_together:  # so that no two have the same port
            server = open_together.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            server.bind((network.V4, 0))
            for _ in range(TIMES):
                client = open_together.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                client.sendto(bytes(100), server.getsockname())
                _, address = server.recvfrom(1000)
                server.sendto(bytes(37), address)
                client.recv(1000)
                ports.append(client.getsockname()[1])
        return ports

    with flows(*HERE) as events:
        pid, ports = network.in_namespace(deed)
    mine = [event for event in events if event["source"]["pid"] == pid and event["protocol"] == "UDP"]
    assert [event["source"]["port"] for event in mine if event["kind"] == "new"] == ports
    ended = [event for event in mine if event["kind"] == "close"]
    assert len(ended) == TIMES
    assert {(event["sent"], event["received"]) for event in ended} == {(100, 37)}


def test_a_refused_connection_is_an_error_of_the_process() -> None:
    def deed() -> int:
        port = network.unused_port(network.V4)
        with socket.socket() as client, pytest.raises(ConnectionRefusedError):
            client.connect((network.V4, port))
        return port

    with flows(*HERE, "--verdict", "ERROR") as events:
        pid, port = network.in_namespace(deed)
    (event,) = [event for event in events if event["source"]["pid"] == pid]
    assert (event["error"], event["destination"]["port"]) == ("ECONNREFUSED", port)
    assert event["source"]["comm"] == Path("/proc/self/comm").read_text().strip()


def test_what_stays_on_this_machine_is_counted_where_it_is_not_shown() -> None:
    command = [*COMMAND, "--local", "--host", "-o", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until_under_way(process)
        pid, _ = network.in_namespace(lambda: talk(network.V4))
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=120)
    assert f'"pid": {pid},' not in out
    found = re.search(r"^not shown: ([\d,]+) events of flows within one pod or host\. try: --loopback$", errors, re.M)
    assert found, errors
    assert int(found[1].replace(",", "")) >= 2 * TIMES
