"""trace tcpdrop: packets to sockets that take none and to ports without a socket, counted exactly."""

import errno
import os
import socket
import struct
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.demo.pods import namespace_of
from tests.bpf import network, network_pods
from tests.bpf.network import address, in_namespace, ip
from tests.bpf.test_trace_tcpretrans import talk_to_the_deaf
from tests.bpf.tracer import Tracer, kept
from tests.vm import modules

pytestmark = pytest.mark.bpf
TIMES = 31
SIZE = 1009
ESTABLISHED, TIME_WAIT = 1, 6
SYN, ACK = 0x02, 0x10
HEADERS = {network.V4: 20 + 32, network.V6: 40 + 32}


def ends(record: dict[str, Any]) -> tuple[str, int, str, int]:
    return address(record["source"]), record["source_port"], address(record["destination"]), record["destination_port"]


def of(reason: str, tracer: Tracer) -> list[dict[str, Any]]:
    return [record for record in tracer.records() if record["reason"] == reason]


def refused(host: str) -> tuple[int, int]:
    """Connects to a port without a listener. Returns it, and the network namespace's number."""
    port = network.unused_port(host)
    for _ in range(TIMES):
        with socket.socket(network.FAMILIES[host]) as sock:
            sock.connect_ex((host, port))
    return port, os.stat("/proc/self/ns/net").st_ino


_kept: list[socket.socket] = []


def keep_socket() -> None:
    _kept.append(socket.socket(type=socket.SOCK_DGRAM))


def send_to_nobody() -> None:
    for _ in range(TIMES):
        _kept[0].sendto(b"x", (network.V4, 9))


class Crowded(Tracer):
    """On a node with many network namespaces besides."""

    def crowd(self, namespaces: int) -> None:
        users = self.object.map("users")
        assert users is not None
        for address_of_one in range(1, namespaces + 1):
            users.put(struct.pack("<Q", address_of_one), bytes(users.value_size))


def test_other_network_namespaces_however_many_hide_no_drops() -> None:
    with network_pods.pods([("shop", "web")], network=False) as (pod,):
        pod.run(keep_socket)
        with Crowded("trace_tcpdrop", udp=True) as tracer:
            tracer.crowd(12_000)
            pod.run(send_to_nobody)
            records = [record for record in of("NO_SOCKET", tracer) if record["destination_port"] == 9]
    assert [record["cgroup"] for record in records] == [pod.cgroup_id] * TIMES


@pytest.mark.parametrize("host", [network.V4, network.V6])
def test_each_packet_that_a_socket_does_not_take_is_seen_with_its_owner(host: str) -> None:
    tracer = kept("trace_tcpdrop")
    lost = tracer.lost
    pid, (server, counts) = in_namespace(lambda: talk_to_the_deaf(host))
    records = [record for record in of("SOCKET_FILTER", tracer) if record["pid"] == pid]
    assert tracer.lost == lost
    for port, count in counts.items():
        # Of the first one and those sent again, only the last was taken.
        assert [ends(record) for record in records if record["source_port"] == port] == [
            (host, port, host, server)
        ] * count
    assert len(records) == sum(counts.values()) >= len(counts)
    assert {record["state"] for record in records} == {ESTABLISHED}
    assert {record["length"] for record in records} == {SIZE + HEADERS[host]}
    assert all(record["flags"] & ACK for record in records)
    assert {record["ppid"] for record in records} == {os.getpid()}


@pytest.mark.parametrize("host", [network.V4, network.V6])
def test_each_packet_for_a_port_without_a_socket_is_seen_with_the_container_of_its_network_namespace(host: str) -> None:
    tracer = kept("trace_tcpdrop")
    pid, (port, namespace) = in_namespace(lambda: refused(host))
    records = [record for record in of("NO_SOCKET", tracer) if record["network_namespace"] == namespace]
    assert [ends(record)[2:] for record in records] == [(host, port)] * TIMES
    assert {record["flags"] for record in records} == {SYN}
    assert {(record["pid"], record["tid"], record["comm"], record["state"]) for record in records} == {(0, 0, "", 0)}
    with Tracer("trace_tcp", connect=True) as tracer:
        pid, _ = in_namespace(lambda: refused(host))
        own = {record["cgroup"] for record in tracer.records() if record["pid"] == pid}
    assert {record["cgroup"] for record in records} == own


@contextmanager
def namespace_without_a_process() -> Iterator[tuple[str, int]]:
    """A network namespace that this machine has a cable to. Gives its address there, and its number."""
    modules.load("veth")
    name, here, there = f"kg{uuid.uuid4().hex[:8]}", "10.213.7.1/30", "10.213.7.2/30"
    holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin
    assert holder.stdout
    holder.stdin.write(b"x")
    holder.stdin.flush()
    assert holder.stdout.read(1) == b"x"  # it has another namespace by now
    inside = namespace_of(holder.pid)
    with open(inside) as kept:
        ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
        ip("address", "add", here, "dev", name)
        ip("link", "set", name, "up")
        ip("address", "add", there, "dev", "eth0", within=inside)
        ip("link", "set", "eth0", "up", within=inside)
        holder.communicate()
        try:
            yield there.partition("/")[0], os.fstat(kept.fileno()).st_ino
        finally:
            ip("link", "delete", name)


def test_packets_in_a_network_namespace_without_a_process_are_the_nodes() -> None:
    with namespace_without_a_process() as (there, namespace), Tracer("trace_tcpdrop") as tracer:
        with socket.socket() as sock:
            assert sock.connect_ex((there, 9)) == errno.ECONNREFUSED
        records = [record for record in of("NO_SOCKET", tracer) if record["network_namespace"] == namespace]
    assert [ends(record)[2:] for record in records] == [(there, 9)]
    assert {(record["pid"], record["state"]) for record in records} == {(0, 0)}


def test_the_place_is_a_function_of_the_kernel() -> None:
    with Tracer("trace_tcpdrop", stack=True) as tracer:
        _, (port, _) = in_namespace(lambda: refused(network.V4))
        records = [record for record in of("NO_SOCKET", tracer) if record["destination_port"] == port]
    assert len(records) == TIMES
    assert all(record["location"].startswith("tcp_v4_rcv+0x") for record in records)
    assert all(any(name.startswith("tcp_v4_rcv+0x") for name in record["stack"]) for record in records)


def closed(host: str) -> int:
    """Closes connections, first the client's end, and then the server's. Returns the server's port."""
    with network.listener(host) as server:
        port: int = server.getsockname()[1]
        for _ in range(TIMES):
            client = socket.create_connection((host, port))
            accepted, _address = server.accept()
            client.close()
            accepted.close()
    return port


def test_packets_that_are_freed_with_a_queue_are_left_out() -> None:
    if b"SKB_DROP_REASON_QUEUE_PURGE" not in Path("/sys/kernel/btf/vmlinux").read_bytes():
        pytest.skip("this kernel has no reason QUEUE_PURGE")
    with Tracer("trace_tcpdrop", all=True) as every, Tracer("trace_tcpdrop") as tracer:
        _, port = in_namespace(lambda: closed(network.V4))
        _, (unused, _) = in_namespace(lambda: refused(network.V4))
        purged = [record for record in of("QUEUE_PURGE", every) if record["source_port"] == port]
        records = tracer.records()
    # The client's socket takes the server's FIN as long as it waits for it itself. The kernel may have
    # replaced it by a TIME_WAIT entry, which queues nothing.
    assert 0 < len(purged) <= TIMES
    assert not [record for record in records if record["reason"] == "QUEUE_PURGE"]
    refusals = [record for record in records if record["destination_port"] == unused]
    assert [record["reason"] for record in refusals] == ["NO_SOCKET"] * TIMES


def late_packets() -> int:
    """Sends an ACK, a byte of data and a SYN to connections in TIME_WAIT, by a raw socket. Returns their server's
    port."""
    with network.listener(network.V4) as server, socket.socket(socket.AF_INET, socket.SOCK_RAW, 6) as raw:
        port: int = server.getsockname()[1]
        for flags, data in ((ACK, b""), (ACK, b"x"), (SYN, b"")):
            client = socket.create_connection((network.V4, port))
            accepted, (_, other) = server.accept()
            accepted.close()
            client.recv(1)
            client.close()
            time.sleep(0.05)
            # The server's end waits. Sequence numbers from outside its window, so it sends no reset.
            head = struct.pack("!HHIIBBHHH", other, port, 1, 1, 5 << 4, flags, 1024, 0, 0)
            pseudo = socket.inet_aton(network.V4) * 2 + struct.pack("!BBH", 0, 6, len(head) + len(data))
            words = pseudo + head + data + bytes(len(data) % 2)
            total = sum(struct.unpack(f"!{len(words) // 2}H", words))
            while total >> 16:
                total = (total & 0xFFFF) + (total >> 16)
            raw.sendto(head[:16] + struct.pack("!H", ~total & 0xFFFF) + head[18:] + data, (network.V4, 0))
        time.sleep(0.2)
    return port


def test_what_a_connection_in_time_wait_does_not_need_is_left_out_unless_it_has_data_or_begins_another() -> None:
    with Tracer("trace_tcpdrop", all=True) as every, Tracer("trace_tcpdrop") as tracer:
        _, port = in_namespace(late_packets)
        found = []
        for one in (every, tracer):
            waits = [record for record in one.records() if record["state"] == TIME_WAIT]
            found.append([record for record in waits if port in (record["source_port"], record["destination_port"])])
    everything, rest = found
    assert {record["flags"] & (SYN | ACK) for record in everything} >= {ACK}
    assert len(rest) < len(everything)
    assert all(record["flags"] & SYN or record["length"] > 40 for record in rest)


def test_stacks_of_what_netfilter_drops_are_not_those_of_other_drops() -> None:
    with Tracer("trace_tcpdrop", **{"netfilter-stack": True}) as tracer:
        _, (port, _) = in_namespace(lambda: refused(network.V4))
        records = [record for record in of("NO_SOCKET", tracer) if record["destination_port"] == port]
    assert [record["stack"] for record in records] == [None] * TIMES


def test_the_port_filter_takes_either_end() -> None:
    with network.listener(network.V4) as sock:
        port: int = sock.getsockname()[1]
    with Tracer("trace_tcpdrop", port=port) as tracer:
        in_namespace(lambda: refused(network.V4))
        with socket.socket() as sock:
            sock.connect_ex((network.V4, port))
        records = tracer.records()
    assert records
    assert all(port in (record["source_port"], record["destination_port"]) for record in records)


def test_a_filter_on_a_process_leaves_out_packets_without_one() -> None:
    with Tracer("trace_tcpdrop", pid=1) as tracer:
        in_namespace(lambda: refused(network.V4))
        assert tracer.records() == []


def overflow(host: str) -> tuple[int, int]:
    """Sends more than a socket has room for. Returns its port, and how many datagrams did not come."""
    with socket.socket(network.FAMILIES[host], socket.SOCK_DGRAM) as server:
        server.bind((host, 0))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with socket.socket(network.FAMILIES[host], socket.SOCK_DGRAM) as client:
            for _ in range(TIMES):
                client.sendto(bytes(SIZE), server.getsockname()[:2])
        came = 0
        server.setblocking(False)
        try:
            while server.recv(SIZE):
                came += 1
        except BlockingIOError:
            return server.getsockname()[1], TIMES - came


@pytest.mark.parametrize("host", [network.V4, network.V6])
def test_each_datagram_for_which_a_socket_has_no_room_is_seen_with_its_owner(host: str) -> None:
    with Tracer("trace_tcpdrop", udp=True) as tracer:
        pid, (port, dropped) = in_namespace(lambda: overflow(host))
        records = [record for record in of("SOCKET_RCVBUFF", tracer) if record["pid"] == pid]
    assert len(records) == dropped > 0
    assert {(ends(record)[2:], record["protocol"], record["flags"], record["state"]) for record in records} == {
        ((host, port), socket.IPPROTO_UDP, 0, 0)
    }
    assert {record["length"] for record in records} == {SIZE + 8 + (20 if host == network.V4 else 40)}


def test_datagrams_are_not_reported_unless_asked_for() -> None:
    tracer = kept("trace_tcpdrop")
    pid, _ = in_namespace(lambda: overflow(network.V4))
    assert [record for record in tracer.records() if record["pid"] == pid] == []
