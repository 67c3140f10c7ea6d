"""Names of the network's numbers, addresses as text, and numbers that may be unknown."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.gadgets.schema import About, AgentSide, Field, Gadget, ProgramChoice, RecordLayout
from kubectl_gadget.linux.network import address_text, family_name, protocol_name, tcp_flag_names, tcp_state_name
from kubectl_gadget.rows.amounts import bytes_text, duration_text
from kubectl_gadget.rows.batch import decode
from kubectl_gadget.rows.members import filter_members, row_members, shown
from tests.rows.records import column, ring

TCP = Gadget(
    name="trace_tcp",
    command=("trace", "tcp"),
    about=About("network", ""),
    record=RecordLayout(
        "tcp",
        40,
        (
            Field("remote", 0, 16, "gadget_ip"),
            Field("duration", 16, 8, "gadget_duration"),
            Field("sent", 24, 8, "gadget_bytes"),
            Field("operation", 32, 4, "operation", values=((1, "connect"), (2, "accept"), (3, "close"))),
            Field("remote_port", 36, 2, "gadget_port"),
            Field("family", 38, 2, "gadget_address_family"),
        ),
    ),
    columns=tuple(map(column, ("remote", "duration", "sent", "operation", "remote_port", "family"))),
    agent=AgentSide((ProgramChoice((("state_changed",),)),)),
)
UNKNOWN = (1 << 64) - 1


def record(remote: str = "1.2.3.4", duration: int = 5, sent: int = 7, operation: int = 1) -> bytes:
    address = ipaddress.ip_address(remote)
    raw = address.packed if len(address.packed) == 16 else bytes(10) + b"\xff\xff" + address.packed
    return raw + struct.pack("<QQIHH", duration, sent, operation, 443, 2)


def test_a_connection_reads_as_people_and_machines_want_it() -> None:
    batch = decode(TCP, "node-1", ring(record(), record("2001:db8::", UNKNOWN, UNKNOWN, 3)))
    row = {member.name: member.read(batch).values() for member in row_members(TCP) if not member.optional}
    assert row == {
        "remote": ["1.2.3.4", "2001:db8::"],
        "duration": [5, None],
        "sent": [7, None],
        "operation": ["connect", "close"],
        "remote_port": [443, 443],
        "family": ["IPv4", "IPv4"],
        "family_raw": [2, 2],
    }
    assert shown(batch, TCP.column("duration")) == ["5ns", "-"]
    assert shown(batch, TCP.column("sent")) == ["7B", "-"]


def test_an_unknown_number_is_null_in_json() -> None:
    batch = decode(TCP, "node-1", ring(record(), record(duration=UNKNOWN)))
    template, (numbers,) = filter_members(TCP)["duration"].read(batch).json()
    assert [template % number for number in numbers] == ["5", "null"]


def test_no_address_is_null_and_a_dash() -> None:
    batch = decode(TCP, "node-1", ring(record("ffff:" * 7 + "ffff")))
    assert filter_members(TCP)["remote"].read(batch).values() == [None]
    assert shown(batch, TCP.column("remote")) == ["-"]


@given(st.ip_addresses(v=6))
def test_an_ipv6_address_is_spelt_as_rfc_5952_says_and_a_mapped_one_as_ipv4(address: ipaddress.IPv6Address) -> None:
    spelt = address_text(address.packed.rstrip(b"\0"))
    if address == ipaddress.IPv6Address("ffff:" * 7 + "ffff"):
        assert spelt is None
    else:
        assert spelt is not None
        assert ipaddress.ip_address(spelt) == (address.ipv4_mapped or address)


@pytest.mark.parametrize(
    ("address", "text"), [("::", "::"), ("::1", "::1"), ("::ffff:0.0.0.0", "0.0.0.0"), ("fe80::1", "fe80::1")]
)
def test_well_known_addresses(address: str, text: str) -> None:
    assert address_text(ipaddress.IPv6Address(address).packed) == text


def test_numbers_of_the_network_have_linux_names() -> None:
    assert [family_name(number) for number in (2, 10, 99)] == ["IPv4", "IPv6", "99"]
    assert [protocol_name(number) for number in (6, 17, 58, 200)] == ["TCP", "UDP", "ICMPv6", "200"]
    assert [tcp_state_name(number) for number in (0, 1, 12, 13)] == ["", "ESTABLISHED", "NEW_SYN_RECV", "13"]
    assert [tcp_flag_names(flags) for flags in (0, 0x02, 0x12, 0x118)] == ["", "SYN", "SYN|ACK", "PSH|ACK|0x100"]


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0ns"), (999, "999ns"), (1000, "1.00µs"), (12_345, "12.3µs"), (123_456_789, "123ms"),
        (999_999_999, "1.00s"), (98_700_000_000, "98.7s"), (245_000_000_000, "4m05s"), (7_500_000_000_000, "2h05m"),
    ],
)  # fmt: skip
def test_a_duration_has_three_digits_that_count(nanoseconds: int, text: str) -> None:
    assert duration_text(nanoseconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0B"), (1023, "1023B"), (1024, "1.00KiB"), (1_048_575, "1.00MiB"), (5 << 60, "5.00EiB")]
)
def test_bytes_are_counted_in_powers_of_1024(count: int, text: str) -> None:
    assert bytes_text(count) == text
