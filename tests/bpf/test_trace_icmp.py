"""trace icmp: real pings over loopback, a prime number of them, from both kinds of sockets that can."""

import socket
import struct

import pytest

from tests.bpf import network
from tests.bpf.network import address, in_namespace
from tests.bpf.tracer import Tracer

pytestmark = pytest.mark.bpf
PINGS, SIZE = 31, 53
FIRST, END = 1, 3
REQUEST = {network.V4: 8, network.V6: 128}
REPLY = {network.V4: 0, network.V6: 129}
PROTOCOL = {network.V4: socket.IPPROTO_ICMP, network.V6: socket.IPPROTO_ICMPV6}


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def ping(host: str, kind: int, identifier: int = 4711) -> None:
    """Sends requests and waits for the reply to each."""
    with open("/proc/sys/net/ipv4/ping_group_range", "w") as file:
        file.write("0 0")
    with socket.socket(network.FAMILIES[host], kind, PROTOCOL[host]) as sock:
        sock.settimeout(30)
        if kind == socket.SOCK_DGRAM:
            sock.bind((host, identifier))
        for number in range(PINGS):
            head = struct.pack("!BBHHH", REQUEST[host], 0, 0, identifier, number)
            data = bytes(SIZE + 1)[:SIZE]
            sum_of = checksum(head + data + b"\0")
            sock.sendto(head[:2] + struct.pack("!H", sum_of) + head[4:] + data, (host, 0))
            while True:
                answer = sock.recv(1000)
                if network.FAMILIES[host] == socket.AF_INET and kind == socket.SOCK_RAW:
                    answer = answer[20:]
                if answer[0] == REPLY[host] and struct.unpack("!H", answer[6:8])[0] == number:
                    break


@pytest.mark.parametrize("host", [network.V4, network.V6])
@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_RAW])
def test_each_ping_is_a_flow_with_its_requests_and_replies(host: str, kind: int) -> None:
    with Tracer("trace_icmp", interval=0) as tracer:
        pid, _ = in_namespace(lambda: ping(host, kind))
        records = [record for record in tracer.records() if record["pid"] == pid]
        assert tracer.lost == 0
    first, end = records
    assert (first["operation"], end["operation"]) == (FIRST, END)
    assert (first["sent_packets"], first["received_packets"]) == (1, 0)
    assert (end["sent_packets"], end["received_packets"]) == (PINGS, PINGS)
    assert (end["sent"], end["received"]) == (PINGS * SIZE, PINGS * SIZE)
    assert (address(end["local"]), address(end["remote"])) == (host, host)
    assert (end["local_port"], end["remote_port"]) == (4711, REQUEST[host])


def test_requests_without_a_reply_are_counted_as_sent_only() -> None:
    def deed() -> None:
        with open("/proc/sys/net/ipv4/icmp_echo_ignore_all", "w") as file:
            file.write("1")
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
            for number in range(PINGS):
                message = struct.pack("!BBHHH", 8, 0, 0, 99, number)
                message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
                sock.sendto(message, (network.V4, 0))

    with Tracer("trace_icmp", interval=0) as tracer:
        pid, _ = in_namespace(deed)
        records = [record for record in tracer.records() if record["pid"] == pid]
    assert [(record["sent_packets"], record["received_packets"]) for record in records] == [(1, 0), (PINGS, 0)]
