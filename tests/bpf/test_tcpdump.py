"""tcpdump: real packets over loopback; libpcap judges the filters and the file."""

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.filters.pcap_filter import compile_filter
from tests.bpf import network
from tests.bpf.network import address, in_namespace
from tests.bpf.tracer import Tracer
from tests.output import libpcap

pytestmark = pytest.mark.bpf
TIMES = 31
IN, OUT = 1, 2
TCP, UDP, ICMP = 6, 17, 1
SIZE = 700


def udp(host: str, times: int = TIMES, size: int = SIZE) -> int:
    """Sends datagrams over loopback. Returns the port that they went to."""
    family = network.FAMILIES[host]
    with socket.socket(family, socket.SOCK_DGRAM) as server, socket.socket(family, socket.SOCK_DGRAM) as client:
        server.bind((host, 0))
        for _ in range(times):
            client.sendto(bytes(size), server.getsockname())
            server.recv(size)
        return int(server.getsockname()[1])


def filtered(expression: str) -> dict[str, Any]:
    return {"gadget_filter_pcap": compile_filter(expression)}


@pytest.fixture(autouse=True)
def _a_name_of_its_own() -> Iterator[None]:
    """This process has it during a test, and so have its children."""
    comm = Path("/proc/self/comm")
    before = comm.read_text().strip()
    comm.write_text(f"dump{os.getpid()}")
    yield
    comm.write_text(before)


class Dump(Tracer):
    """With the packets' bytes beside the rows. Only of this process's children, which have its name, since all of a
    busy machine's packets would fill the ring."""

    def __init__(self, name: str, variables: dict[str, Any] | None = None, **parameters: Any) -> None:
        comm = {"gadget_filter_comm": Path("/proc/self/comm").read_text().strip()}
        super().__init__(name, variables=comm | (variables or {}), **parameters)

    def packets(self, pid: int) -> list[tuple[dict[str, Any], bytes]]:
        found = []
        for record in self.raw_records():
            row = self._decode(record)
            offset, length = struct.unpack("<HH", struct.pack("<I", row["packet"]))
            if row["pid"] == pid:
                found.append((row, record[offset : offset + (length & 0x7FFF)]))
        return found

    def raw_records(self) -> list[bytes]:
        from tests.bpf.tracer import split

        return list(split(self.data()))


@pytest.mark.parametrize("host", [network.V4, network.V6])
def test_each_packet_is_one_row_at_either_end(host: str) -> None:
    with Dump("tcpdump") as tracer:
        pid, port = in_namespace(lambda: udp(host))
        rows = [row for row, _ in tracer.packets(pid)]
        assert tracer.lost == 0
    assert [row["direction"] for row in rows] == [OUT, IN] * TIMES
    for row in rows:
        assert (address(row["source"]), address(row["destination"])) == (host, host)
        assert (row["destination_port"], row["protocol"], row["flags"]) == (port, UDP, 0)
        assert row["length"] == SIZE + 8 + (20 if host == network.V4 else 40)


def test_tcp_shows_flags_and_numbers_from_the_first_packet_to_the_last() -> None:
    def deed() -> None:
        with network.listener(network.V4) as server, socket.create_connection(server.getsockname()) as client:
            accepted, _ = server.accept()
            client.sendall(b"hello")
            accepted.recv(5)
            accepted.close()

    with Dump("tcpdump") as tracer:
        pid, _ = in_namespace(deed)
        rows = [row for row, _ in tracer.packets(pid) if row["direction"] == OUT]
    syn, synack, *_ = rows
    assert (syn["flags"], synack["flags"], synack["acknowledged"]) == (2, 0x12, syn["sequence"] + 1)
    data = [row for row in rows if row["length"] == 57]
    assert [(row["sequence"], row["flags"]) for row in data] == [(syn["sequence"] + 1, 0x18)]
    assert sum(row["flags"] & 1 for row in rows) == 2
    assert all(row["window"] for row in rows)


def test_the_packet_is_there_up_to_the_length_that_was_asked_for() -> None:
    with Dump("tcpdump", snaplen=100) as tracer:
        pid, port = in_namespace(lambda: udp(network.V4, 1))
        (row, data), _ = tracer.packets(pid)
    assert (len(data), row["length"]) == (100, SIZE + 28)
    assert data[:1] == b"\x45"
    assert struct.unpack(">H", data[22:24]) == (port,)


EXPRESSIONS = [
    "tcp",
    "udp",
    "icmp or ip6",
    "ip6 and tcp",
    "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
    "tcp[13] = 18",
    "port 5301",
    "dst port 5301",
    "portrange 5300-5301 and not tcp",
    "len > 500",
    "greater 200 and less 400",
    "host 127.0.0.1",
    "src net 127.0.0.0/9 and udp[4:2] > 100",
    "ip6 host ::1",
    "ip[8] > 1 and ip[2:2] - ((ip[0]&0xf)<<2) > 32",
    "udp[8] = 0x41 or tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x47455420",
    "icmp[icmptype] = icmp-echo",
    "not host 127.0.0.1",
    "ip[0:4] * 3 / 2 % 7 = 1 or ip6[6] = 17",
    "udp port 9",
    "udp[60000] = 1",
]


MATCH_NOTHING = ["udp port 9", "udp[60000] = 1"]


def mixed() -> None:
    """Packets of many kinds."""
    for family, host in ((socket.AF_INET, network.V4), (socket.AF_INET6, network.V6)):
        for port, content in ((5300, b"A" * 10), (5301, b"B" * 600), (5302, b"C" * 250)):
            with socket.socket(family, socket.SOCK_DGRAM) as server, socket.socket(family, socket.SOCK_DGRAM) as client:
                server.bind((host, port))
                client.sendto(content, (host, port))
                server.recv(1000)
        with network.listener(host) as listening, socket.create_connection(listening.getsockname()[:2]) as client:
            accepted, _ = listening.accept()
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            accepted.recv(100)
            accepted.close()
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as ping:
        ping.sendto(b"\x08\0\xf7\xff\0\0\0\0", (network.V4, 0))
        ping.recv(100)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_a_filter_lets_through_what_libpcap_would(expression: str) -> None:
    with Dump("tcpdump") as everything, Dump("tcpdump", variables=filtered(expression)) as tracer:
        pid, _ = in_namespace(mixed)
        told = [(row["direction"], data) for row, data in tracer.packets(pid)]
        all_packets = everything.packets(pid)
    wanted = [(row["direction"], data) for row, data in all_packets if libpcap.matches(expression, data, row["length"])]
    assert len(all_packets) > 40
    assert told == wanted
    assert bool(told) == (expression not in MATCH_NOTHING)
    assert len(told) < len(all_packets)
