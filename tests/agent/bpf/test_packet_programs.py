"""The table of the packets for which the programs of several gadgets are called."""

import struct
from collections.abc import Mapping

import pytest

from kubectl_gadget.agent.bpf.packet_programs import WantedPackets, wanted_table

ICMP, TCP, UDP, ICMPV6, SCTP, MPTCP = 1, 6, 17, 58, 132, 262
PROTOCOLS = 256


def packets(words: str, port: int = 0) -> WantedPackets:
    return WantedPackets(frozenset(words.split()), port)


def table_of(wanted: Mapping[int, WantedPackets]) -> tuple[dict[int, int], dict[str, int]]:
    """Returns the bits by protocol, without zeros, and the other members."""
    numbers = struct.unpack(f"<{PROTOCOLS + 4}I", wanted_table(wanted))
    members = dict(zip(("others", "with_port", "unquiet", "port"), numbers[PROTOCOLS:], strict=True))
    return {protocol: bits for protocol, bits in enumerate(numbers[:PROTOCOLS]) if bits}, members


def test_protocols_are_those_of_the_sockets() -> None:
    bits, members = table_of({0: packets("udp sctp"), 3: packets("icmp icmpv6")})
    assert bits == {UDP: 1, SCTP: 1, ICMP: 8, ICMPV6: 8}
    assert not any(members.values())


def test_other_is_all_but_tcp() -> None:
    bits, members = table_of({1: packets("other")})
    assert bits == dict.fromkeys(set(range(PROTOCOLS)) - {TCP}, 2)
    assert members["others"] == 2, "for protocols with numbers above 255, such as Multipath TCP"


def test_gadgets_that_want_only_tcp_get_no_other_protocol() -> None:
    bits, members = table_of({0: packets("unquiet"), 1: packets("port", 53)})
    assert not bits
    assert members == {"others": 0, "with_port": 2, "unquiet": 1, "port": 53}


def test_a_gadget_that_wants_all_but_tcp_still_gets_tcp_packets_of_its_port() -> None:
    """Which socket sends a packet of TCP does not matter (bpf/packets.bpf.c)."""
    bits, members = table_of({2: packets("other port", 53)})
    assert TCP not in bits
    assert (members["with_port"], members["port"]) == (4, 53)


def test_gadgets_with_another_port_or_any_port_get_every_tcp_packet() -> None:
    bits, members = table_of(
        {0: packets("port", 53), 1: packets("port", 53), 2: packets("port", 5353), 3: packets("port")}
    )
    assert bits == {TCP: 0b1100}
    assert (members["with_port"], members["port"]) == (0b11, 53)


def test_without_gadgets_the_table_is_empty() -> None:
    assert wanted_table({}) == bytes(4 * (PROTOCOLS + 4))


@pytest.mark.parametrize("number", [0, 15])
def test_the_first_and_the_last_number_have_a_bit(number: int) -> None:
    assert table_of({number: packets("udp")})[0] == {UDP: 1 << number}
