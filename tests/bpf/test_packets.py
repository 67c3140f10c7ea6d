"""Programs for packets of several gadgets that one program calls: each sees what it sees when the kernel runs it."""

import os
import socket
import struct
from collections.abc import Iterator

import pytest

from kubectl_gadget.agent.bpf.links import REMOVED
from kubectl_gadget.agent.bpf.packet_programs import PacketDispatcher
from kubectl_gadget.gadgets.load import load_gadget
from tests.bpf import network, test_trace_tcp, test_trace_udp
from tests.bpf.network import in_namespace
from tests.bpf.tracer import Tracer

pytestmark = pytest.mark.bpf
SYN, REPORT = 4, 6
SERVERS = 5353
"""A port for trace dns, which takes all on it."""
PIECES, PIECE = 31, 4001


@pytest.fixture
def packets() -> Iterator[PacketDispatcher]:
    dispatcher = PacketDispatcher(is_needed=True)
    yield dispatcher
    dispatcher.close()


def calls_all(packets: PacketDispatcher, *tracers: Tracer) -> bool:
    chosen = {tracer: [name for name in tracer.object.chosen if name.startswith("packet_")] for tracer in tracers}
    return all(names and all(packets.calls(of.object, name) for name in names) for of, names in chosen.items())


def stream() -> tuple[int, int]:
    """A connection to the servers' port and one to another port, with as many bytes. Returns the clients' ports."""
    ports = []
    for port in (SERVERS, 0):
        with network.listener(network.V4, port) as server, socket.create_connection(server.getsockname()[:2]) as client:
            accepted, _ = server.accept()
            with accepted:
                for _ in range(PIECES):
                    client.sendall(bytes(PIECE))
                    test_trace_tcp.receive(accepted, PIECE)
            ports.append(client.getsockname()[1])
    return ports[0], ports[1]


def test_each_gadget_gets_its_packets(packets: PacketDispatcher) -> None:
    with (
        Tracer("trace_tcp", packets=packets, reports=True, report_interval=3_600_000) as tcp,
        Tracer("trace_udp", packets=packets, interval=0) as udp,
        Tracer("trace_icmp", packets=packets, interval=0) as icmp,
        Tracer("trace_dns", packets=packets, port=SERVERS) as dns,
    ):
        assert calls_all(packets, tcp, udp, icmp, dns)
        dns.gadget = dns.gadget.as_sent()
        pid, (with_port, _) = in_namespace(stream)
        assert [record["operation"] for record in test_trace_tcp.of(pid, tcp)].count(SYN) == 2
        payloads = [record for record in dns.records() if record["pid"] == pid and record["payload_bytes"]]
        assert {record["local_port"] for record in payloads} == {SERVERS, with_port}
        assert sum(record["payload_bytes"] for record in payloads if record["outgoing"]) == PIECES * PIECE

        pid, (client, _) = in_namespace(lambda: test_trace_udp.talk(network.V4, True, SERVERS))
        assert packets.calls(udp.object, "flows_ended")
        assert packets.calls(dns.object, "socket_released")
        ended = test_trace_udp.of(pid, udp, test_trace_udp.END)
        assert sorted(record["sent_packets"] for record in ended) == sorted((31, 7))
        assert sum(record["pid"] == pid for record in dns.records()) == 2 * (31 + 7)
        assert client in {record["local_port"] for record in ended}
        assert not test_trace_tcp.of(pid, tcp)

        in_namespace(ping)
        assert any(record["local_port"] for record in icmp.records())
        assert tcp.lost == udp.lost == icmp.lost == dns.lost == 0


def ping() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        # An echo request; its checksum is that of these words.
        raw.sendto(struct.pack("!BBHHH", 8, 0, 0xFFFF - (0x0800 + 7 + 1), 7, 1), (network.V4, 0))
        raw.recv(100)


def test_the_end_that_only_receives_reports(packets: PacketDispatcher) -> None:
    """No program for received packets is needed: what is received is acknowledged."""
    with (
        Tracer("trace_tcp", packets=packets, reports=True, report_interval=0) as tcp,
        Tracer("trace_udp", packets=packets) as udp,
    ):
        assert "packet_received" not in tcp.object.program_names
        assert calls_all(packets, tcp, udp)
        pid, _ = in_namespace(stream)
        reports = [record for record in test_trace_tcp.of(pid, tcp, REPORT) if record["initiator"] == 2]
    assert len({record["received"] for record in reports}) > PIECES / 4


def test_nothing_is_attached_but_what_calls(packets: PacketDispatcher) -> None:
    with Tracer("trace_udp", packets=packets):
        assert sorted(packets._own().program_names) == ["any_closed", "any_received", "any_sent"]


def test_reports_come_as_often_as_asked(packets: PacketDispatcher) -> None:
    with (
        Tracer("trace_tcp", packets=packets, reports=True, report_interval=0) as tcp,
        Tracer("trace_udp", packets=packets) as udp,
    ):
        assert calls_all(packets, tcp, udp)
        pid, _ = in_namespace(stream)
        reports = test_trace_tcp.of(pid, tcp, REPORT)
    assert sum(record["initiator"] == 1 for record in reports) >= 2 * PIECES
    assert max(record["received"] for record in reports if record["initiator"] == 2) == PIECES * PIECE


def test_a_sender_that_is_not_the_owner_ends_the_silence(packets: PacketDispatcher) -> None:
    """A socket is quiet for an hour, until another process sends."""

    def deed() -> int:
        with network.listener(network.V4) as server, socket.create_connection(server.getsockname()[:2]) as client:
            accepted, _ = server.accept()
            with accepted:
                client.sendall(b"owner")
                child = os.fork()
                if not child:
                    client.sendall(b"child")
                    os._exit(0)
                os.waitpid(child, 0)
                client.sendall(b"owner")
                test_trace_tcp.receive(accepted, 15)
        return child

    with (
        Tracer("trace_tcp", packets=packets, reports=True, report_interval=3_600_000) as tcp,
        Tracer("trace_udp", packets=packets) as udp,
    ):
        assert calls_all(packets, tcp, udp)
        pid, child = in_namespace(deed)
        closed = [record for record in test_trace_tcp.of(pid, tcp, test_trace_tcp.CLOSE) if record["initiator"] == 1]
    assert [record["user_pid"] for record in closed] == [child]


def test_a_gadget_that_ends_leaves_the_others(packets: PacketDispatcher) -> None:
    with Tracer("trace_udp", packets=packets, interval=0) as udp:
        with Tracer("trace_icmp", packets=packets) as icmp:
            assert calls_all(packets, udp, icmp)
        pid, _ = in_namespace(lambda: test_trace_udp.talk(network.V4, True))
        assert test_trace_udp.of(pid, udp, test_trace_udp.END)
        assert udp.stopped() == {}


def test_a_gadget_that_says_nothing_of_packets_is_run_by_the_kernel(packets: PacketDispatcher) -> None:
    with Tracer("tcpdump", packets=packets) as tracer:
        assert not packets.calls(tracer.object, "packet_sent")
        assert "packet_sent" in load_gadget("tcpdump").agent.programs[0].any_of[0]


def test_what_another_process_removes_is_found_out(packets: PacketDispatcher) -> None:
    with (
        Tracer("trace_udp", packets=packets) as udp,
        Tracer("trace_icmp", packets=packets) as icmp,
    ):
        assert udp.stopped() == icmp.stopped() == {}
        packets._own().required_map("sent_programs").remove(struct.pack("<I", packets._numbers[icmp.object]))
        assert udp.stopped() == {}
        assert icmp.stopped() == {"packet_sent": REMOVED}
        packets._own().required_map(".data.wanted").put(bytes(4), bytes(1040))
        assert udp.stopped() == dict.fromkeys(("packet_sent", "packet_received", "flows_ended"), REMOVED)
