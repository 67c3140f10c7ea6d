"""What packet sockets and AF_XDP send, in each way, a prime number of times: each packet is counted, at its sender.

Some ways share memory with the kernel: a ring, and AF_XDP.
"""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import dns.message
import dns.rrset
import pytest

from tests.bpf import deeds, network_pods, packet_sockets
from tests.bpf.answers import Answers
from tests.bpf.network import address, in_namespace
from tests.bpf.network_pods import Pod
from tests.bpf.packet_sockets import WAYS
from tests.bpf.tracer import Tracer
from tests.bpf.viewed import Viewed

pytestmark = pytest.mark.bpf
TIMES = 31
PORT, FROM = 7777, 4321
FAMILIES = {"xdp": 44}
FIRST, FLOW = 1, 2
NOBODY = 65534
COMM = Path("/proc/self/comm").read_text().strip()
_kept: dict[int, socket.socket] = {}
"""Of a worker."""


@pytest.fixture(scope="module")
def pods() -> Iterator[list[Pod]]:
    if reason := network_pods.why_no_network():
        pytest.skip(reason)
    with network_pods.pods([("shop", "client"), ("shop", "server")]) as found:
        yield found


def listen(host: str, port: int) -> bytes:
    """Return the hardware address."""
    _kept[port] = socket.socket(network_pods.family(host), socket.SOCK_DGRAM)
    _kept[port].settimeout(20)
    _kept[port].bind((host, port))
    return packet_sockets.hardware_address("eth0")


def echo(port: int, times: int) -> int:
    """Answers each datagram. Return how many came."""
    with _kept.pop(port) as sock:
        for _ in range(times):
            data, sender = sock.recvfrom(4096)
            sock.sendto(data, sender)
    return times


def answer_names(port: int, times: int) -> int:
    with _kept.pop(port) as sock:
        for _ in range(times):
            data, sender = sock.recvfrom(4096)
            asked = dns.message.from_wire(data)
            answer = dns.message.make_response(asked)
            answer.answer.append(dns.rrset.from_text(asked.question[0].name, 60, "IN", "A", "192.0.2.7"))
            sock.sendto(answer.to_wire(), sender)
    return times


def of(pid: int, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record for record in records if record["pid"] == pid]


@pytest.mark.parametrize("version", ["v4", "v6"])
@pytest.mark.parametrize("way", WAYS)
def test_each_packet_is_counted_with_its_process_and_so_is_each_answer(pods: list[Pod], way: str, version: str) -> None:
    client, server = pods
    source, target = (getattr(client, version), FROM), (getattr(server, version), PORT)
    with Tracer("trace_udp") as tracer:
        to = server.run(listen, *target)
        server.begin(echo, PORT, TIMES)
        client.run(packet_sockets.send, way, "eth0", source, target, [b"x" * 41] * TIMES, to)
        assert server.end() == TIMES
        records = of(client.pid, tracer.records())
        assert tracer.unexamined == tracer.lost == 0
    assert {(address(row["local"]), row["local_port"]) for row in records} == {source}
    assert {(address(row["remote"]), row["remote_port"]) for row in records} == {target}
    assert {row["family"] for row in records} == {FAMILIES.get(way, 17)}
    assert {(row["comm"], row["cgroup"]) for row in records} == {(COMM, client.cgroup_id)}
    assert [row["operation"] for row in records] == [FIRST] + [FLOW] * (2 * TIMES - 1)
    last = records[-1]
    assert (last["sent_packets"], last["received_packets"]) == (TIMES, TIMES)
    assert (last["sent"], last["received"]) == (TIMES * 41, TIMES * 41)


@pytest.mark.parametrize("way", WAYS)
def test_each_question_and_its_answer_is_a_row(pods: list[Pod], way: str) -> None:
    client, server = pods
    names = [f"n{number}.example" for number in range(TIMES)]
    questions = [dns.message.make_query(name, "A").to_wire() for name in names]
    with Viewed("trace_dns") as tracer:
        to = server.run(listen, server.v4, 53)
        server.begin(answer_names, 53, TIMES)
        client.run(packet_sockets.send, way, "eth0", (client.v4, FROM), (server.v4, 53), questions, to)
        assert server.end() == TIMES
        rows = of(client.pid, tracer.rows())
        assert tracer.unexamined == tracer.lost == 0
    assert [row["name"] for row in rows] == names
    for row in rows:
        assert (row["rcode"], row["addresses"], row["role"]) == ("NOERROR", ["192.0.2.7"], "client")
        assert row["family"] == ("xdp" if way == "xdp" else "packet")
        assert 0 < row["latency"] < 10**10


def test_ordinary_sockets_say_so(pods: list[Pod]) -> None:
    client, server = pods
    with Tracer("trace_udp", interval=0) as tracer:
        server.run(listen, server.v4, PORT)
        server.begin(echo, PORT, 1)
        client.run(ask, server.v4, PORT)
        server.end()
        records = of(client.pid, tracer.records())
    assert {row["family"] for row in records} == {socket.AF_INET}


def ask(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", (host, port))
        sock.recv(1)


@pytest.mark.parametrize("way", [way for way in WAYS if way not in ("bypassing", "xdp")])
def test_packets_to_loopback_are_counted_too(way: str) -> None:
    def deed() -> int:
        ends = ("127.0.0.1", FROM), ("127.0.0.1", PORT)
        return packet_sockets.send(way, "lo", *ends, [b"x"] * TIMES, bytes(6))

    with Tracer("trace_udp") as tracer:
        pid, _ = in_namespace(deed)
        records = of(pid, tracer.records())
        assert tracer.unexamined == tracer.lost == 0
    assert [row["sent_packets"] for row in records][-1:] == [TIMES]


def test_a_packet_that_a_stacked_device_passes_on_counts_once(pods: list[Pod]) -> None:
    client, server = pods
    try:
        client.run(add_macvlan)
    except AssertionError as error:
        pytest.skip(f"this kernel has no macvlan: {error}")
    with Tracer("trace_udp") as tracer:
        to = server.run(listen, server.v4, PORT)
        source, target = (client.v4, FROM), (server.v4, PORT)
        client.run(packet_sockets.send, "raw", "stacked", source, target, [b"x"] * TIMES, to)
        records = [row for row in of(client.pid, tracer.records()) if row["sent_packets"]]
    client.run(remove_macvlan)
    assert records[-1]["sent_packets"] == TIMES
    server.run(forget, PORT)


def forget(port: int) -> None:
    _kept.pop(port).close()


def add_macvlan() -> None:
    network_pods.ip("link", "add", "stacked", "link", "eth0", "type", "macvlan", "mode", "bridge")
    network_pods.ip("link", "set", "stacked", "up")


def remove_macvlan() -> None:
    network_pods.ip("link", "del", "stacked")


def test_what_another_container_only_listens_to_is_no_flow_of_it(pods: list[Pod]) -> None:
    client, server = pods
    with Tracer("trace_udp") as tracer:
        server.run(sniff)
        server.run(listen, server.v4, PORT)
        server.begin(echo, PORT, 1)
        client.run(ask, server.v4, PORT)
        server.end()
        server.run(forget, 0)
        records = tracer.records()
    assert {row["family"] for row in records if row["pid"] in (client.pid, server.pid)} == {socket.AF_INET}


def sniff() -> None:
    _kept[0] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(packet_sockets.ETH_P_ALL))


def test_a_header_that_cannot_be_read_is_counted_as_lost() -> None:
    """A packet of more than a page is in pages of its own, apart from the device's header."""

    def deed() -> None:
        packet = packet_sockets.udp_packet(("127.0.0.1", FROM), ("127.0.0.1", PORT), bytes(9000))
        head = bytes(10)  # struct virtio_net_hdr, so that the kernel may take pages
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
            sock.setsockopt(packet_sockets.SOL_PACKET, 15, 1)
            sock.bind(("lo", 0))
            for _ in range(TIMES):
                sock.send(
                    head[:2] + (14).to_bytes(2, "little") + head[4:] + packet_sockets.frame("lo", packet, bytes(6))
                )

    with Tracer("trace_udp") as tracer:
        pid, _ = in_namespace(deed)
        records = of(pid, tracer.records())
        # Where a page was free behind the head, the header is read.
        assert len(records) + tracer.unexamined == TIMES


@pytest.mark.parametrize("protocol", [socket.IPPROTO_RAW, socket.IPPROTO_UDP, socket.IPPROTO_TCP, 253])
def test_datagrams_of_a_raw_socket_with_headers_of_its_own_are_a_flow(protocol: int) -> None:
    def deed() -> None:
        packet = packet_sockets.udp_packet(("127.0.0.1", FROM), ("127.0.0.1", PORT), b"x" * 41)
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol) as sock:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
            for _ in range(TIMES):
                sock.sendto(packet, ("127.0.0.1", 0))

    with Tracer("trace_udp", interval=0) as tracer:
        pid, _ = in_namespace(deed)
        records = [record for record in of(pid, tracer.records()) if record["local_port"] == FROM]
    assert [(record["operation"], record["sent_packets"]) for record in records] == [(FIRST, 1), (3, TIMES)]
    assert {(record["comm"], record["family"]) for record in records} == {(COMM, socket.AF_INET)}


def test_pings_of_a_raw_socket_with_headers_of_its_own_are_a_flow() -> None:
    def deed() -> None:
        echo = struct.pack("!BBHHH", 8, 0, 0, 77, 1)
        echo = echo[:2] + struct.pack("!H", packet_sockets.checksum(echo)) + echo[4:]
        head = packet_sockets.udp_packet(("127.0.0.1", 0), ("127.0.0.1", 0), b"")[:20]
        packet = head[:9] + bytes([socket.IPPROTO_ICMP]) + head[10:] + echo
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
            for _ in range(TIMES):
                sock.sendto(packet, ("127.0.0.1", 0))

    with Tracer("trace_icmp", interval=0) as tracer:
        pid, _ = in_namespace(deed)
        records = of(pid, tracer.records())
    assert records[-1]["sent_packets"] == TIMES


def test_opening_such_a_socket_is_a_change_of_privilege_and_so_is_a_failed_attempt() -> None:
    def deed() -> None:
        for _ in range(TIMES):
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
            socket.socket(packet_sockets.AF_XDP, socket.SOCK_RAW, 0).close()
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
        os.setresuid(NOBODY, NOBODY, NOBODY)
        with suppress(PermissionError):
            socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)

    with Tracer("trace_privilege") as tracer:
        pid, code = deeds.in_child(deed)
        records = of(pid, tracer.records())
    assert code == 0
    opened = [(record["operation"], record["errno"]) for record in records if record["operation"] != "setresuid"]
    assert opened == [("packet_socket", 0), ("xdp_socket", 0)] * TIMES + [("packet_socket", 1)]


def test_such_sockets_are_listed_with_their_device() -> None:
    sockets = [socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) for _ in range(TIMES)]
    sockets += [socket.socket(packet_sockets.AF_XDP, socket.SOCK_RAW, 0)]
    listening = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(packet_sockets.ETH_P_ALL))
    sockets[0].bind(("lo", 0))
    try:
        with Answers("snapshot_socket", pid=os.getpid()) as snapshot:
            listed = [record for record in snapshot.take() if record["family"] in (17, 44)]
        with Answers("snapshot_socket", pid=os.getpid(), listening=True) as snapshot:
            waiting = [record for record in snapshot.take() if record["family"] == 17]
    finally:
        for sock in [*sockets, listening]:
            sock.close()
    assert sorted(record["family"] for record in listed) == [17] * (TIMES + 1) + [44]
    named = [record["device"].to_bytes(16, "little").rstrip(b"\0") for record in listed if record["device"]]
    assert named == [b"lo"]
    assert {record["inode"] for record in waiting} < {record["inode"] for record in listed}
    assert len(waiting) == 1
