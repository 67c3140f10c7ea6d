"""trace bind: binds known addresses a prime number of times, and reads every field of what was seen."""

import errno
import os
import socket
import struct
from typing import Any

import pytest

from tests.bpf import network
from tests.bpf.network import address, in_namespace
from tests.bpf.tracer import Tracer
from tests.bpf.uring import Uring

pytestmark = pytest.mark.bpf
TIMES = 31
REUSEADDR, REUSEPORT, FREEBIND, TRANSPARENT, NO_PORT, V6ONLY = (1 << bit for bit in range(6))
IP_FREEBIND, IP_TRANSPARENT, IP_BIND_ADDRESS_NO_PORT = 15, 19, 24


def of(pid: int, tracer: Tracer) -> list[dict[str, Any]]:
    return [record for record in tracer.records() if record["pid"] == pid]


@pytest.mark.parametrize("host", [network.V4, network.V6, "::ffff:127.0.0.1"])
@pytest.mark.parametrize(
    ("kind", "protocol"), [(socket.SOCK_STREAM, socket.IPPROTO_TCP), (socket.SOCK_DGRAM, socket.IPPROTO_UDP)]
)
def test_each_bind_is_seen_once_with_the_port_that_it_got(host: str, kind: int, protocol: int) -> None:
    def deed() -> list[tuple[int, int]]:
        found = []
        for _ in range(TIMES):
            with socket.socket(network.FAMILIES[host], kind) as sock:
                sock.bind((host, 0))
                found.append((sock.getsockname()[1], sock.fileno()))
        return found

    with Tracer("trace_bind") as tracer:
        pid, expected = in_namespace(deed)
        records = of(pid, tracer)
        assert tracer.lost == 0
    assert [(record["port"], record["fd"]) for record in records] == expected
    assert {address(record["address"]) for record in records} == {host.removeprefix("::ffff:")}
    assert {(record["asked_port"], record["errno"], record["device"]) for record in records} == {(0, 0, 0)}
    assert {(record["protocol"], record["family"]) for record in records} == {(protocol, network.FAMILIES[host])}


def test_a_port_that_is_taken_is_reported_with_what_was_asked_for() -> None:
    def deed() -> int:
        with network.listener(network.V4) as server:
            for _ in range(TIMES):
                with socket.socket() as sock, pytest.raises(OSError, match="Address already in use"):
                    sock.bind(server.getsockname())
            return int(server.getsockname()[1])

    with Tracer("trace_bind", failed=True) as tracer:
        pid, port = in_namespace(deed)
        records = of(pid, tracer)
    told = [(record["errno"], address(record["address"]), record["port"], record["asked_port"]) for record in records]
    assert told == [(errno.EADDRINUSE, network.V4, port, port)] * TIMES


def test_an_address_that_no_interface_has_is_reported() -> None:
    def deed() -> None:
        with socket.socket(socket.AF_INET6) as sock, pytest.raises(OSError, match="Cannot assign"):
            sock.bind(("2001:db8::7", 80))

    with Tracer("trace_bind") as tracer:
        pid, _ = in_namespace(deed)
        (record,) = of(pid, tracer)
    assert (record["errno"], address(record["address"]), record["port"]) == (errno.EADDRNOTAVAIL, "2001:db8::7", 80)


@pytest.mark.parametrize(
    ("family", "level", "option", "bit"),
    [
        (socket.AF_INET, socket.SOL_SOCKET, socket.SO_REUSEADDR, REUSEADDR),
        (socket.AF_INET, socket.SOL_SOCKET, socket.SO_REUSEPORT, REUSEPORT),
        (socket.AF_INET, socket.IPPROTO_IP, IP_FREEBIND, FREEBIND),
        (socket.AF_INET, socket.IPPROTO_IP, IP_TRANSPARENT, TRANSPARENT),
        (socket.AF_INET, socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, NO_PORT),
        (socket.AF_INET6, socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, V6ONLY),
    ],
)
def test_each_option_is_reported(family: int, level: int, option: int, bit: int) -> None:
    def deed() -> None:
        with socket.socket(family) as sock:
            sock.setsockopt(level, option, 1)
            sock.bind(("", 0))

    with Tracer("trace_bind") as tracer:
        pid, _ = in_namespace(deed)
        (record,) = of(pid, tracer)
    assert record["options"] == bit


def test_the_device_is_reported_by_its_name() -> None:
    def deed() -> int:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
            sock.bind(("", 0))
        return socket.if_nametoindex("lo")

    with Tracer("trace_bind") as tracer:
        pid, index = in_namespace(deed)
        (record,) = of(pid, tracer)
    assert record["device"].to_bytes(16, "little").rstrip(b"\0") == b"lo"
    assert record["device_index"] == index


def test_a_raw_socket_has_a_protocol_and_no_port() -> None:
    def deed() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
            sock.bind((network.V4, 0))

    with Tracer("trace_bind") as tracer:
        pid, _ = in_namespace(deed)
        (record,) = of(pid, tracer)
    assert (record["protocol"], record["port"]) == (socket.IPPROTO_ICMP, 0)


def test_sockets_that_have_no_ip_address_are_not_reported() -> None:
    with Tracer("trace_bind", pid=os.getpid()) as tracer:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(b"\0" + os.urandom(16).hex().encode())
        assert tracer.records() == []


def test_the_port_filter_takes_what_was_asked_for_and_what_was_given() -> None:
    with socket.socket() as free:
        free.bind((network.V4, 0))
        port = free.getsockname()[1]
    with Tracer("trace_bind", port=port, pid=os.getpid()) as tracer:
        for _ in range(TIMES):
            with socket.socket() as sock, socket.socket() as other:
                other.bind((network.V4, 0))
                sock.bind((network.V4, port))
        assert [record["port"] for record in tracer.records()] == [port] * TIMES


def test_what_io_uring_binds_is_seen_once() -> None:
    address = struct.pack("=H", socket.AF_INET) + struct.pack(">H4s8x", 0, socket.inet_aton(network.V4))
    ports = []
    with Tracer("trace_bind", pid=os.getpid()) as tracer:
        if "bind_of_uring" not in tracer.programs:
            pytest.skip("this kernel has no fexit, or io_uring does not bind there")
        with Uring() as ring:
            for _ in range(TIMES):
                with socket.socket() as sock:
                    assert ring.bind(sock.fileno(), address) == 0
                    ports.append(sock.getsockname()[1])
        records = tracer.records()
    assert [(record["port"], record["asked_port"], record["fd"]) for record in records] == [
        (port, 0, -1) for port in ports
    ]
