"""Which packets the programs of several gadgets are called for, by what their objects say."""

import struct
from collections.abc import Mapping

import pytest

from kubectl_gadget.agent.bpf.packet_programs import PacketWish, table

ICMP, TCP, UDP, ICMPV6, SCTP, MPTCP = 1, 6, 17, 58, 132, 262
PROTOCOLS = 256


def wish(words: str, port: int = 0) -> PacketWish:
    return PacketWish(frozenset(words.split()), port)


def made(wishes: Mapping[int, PacketWish]) -> tuple[dict[int, int], dict[str, int]]:
    """The bits by protocol, where there are some, and the other members."""
    numbers = struct.unpack(f"<{PROTOCOLS + 4}I", table(wishes))
    members = dict(zip(("others", "with_port", "unquiet", "port"), numbers[PROTOCOLS:], strict=True))
    return {protocol: bits for protocol, bits in enumerate(numbers[:PROTOCOLS]) if bits}, members


def test_protocols_are_those_of_the_sockets() -> None:
    bits, members = made({0: wish("udp sctp"), 3: wish("icmp icmpv6")})
    assert bits == {UDP: 1, SCTP: 1, ICMP: 8, ICMPV6: 8}
    assert not any(members.values())


def test_other_is_all_but_tcp() -> None:
    bits, members = made({1: wish("other")})
    assert bits == dict.fromkeys(set(range(PROTOCOLS)) - {TCP}, 2)
    assert members["others"] == 2, "of protocols with high numbers, as Multipath TCP"


def test_what_is_wanted_of_tcp_alone_is_asked_only_there() -> None:
    bits, members = made({0: wish("unquiet"), 1: wish("port", 53)})
    assert not bits
    assert members == {"others": 0, "with_port": 2, "unquiet": 1, "port": 53}


def test_packets_of_tcp_go_by_their_port_to_who_wants_all_others() -> None:
    """Which socket sends a packet of TCP does not matter (bpf/packets.bpf.c)."""
    bits, members = made({2: wish("other port", 53)})
    assert TCP not in bits
    assert (members["with_port"], members["port"]) == (4, 53)


def test_gadgets_with_another_port_and_with_any_get_every_packet() -> None:
    bits, members = made({0: wish("port", 53), 1: wish("port", 53), 2: wish("port", 5353), 3: wish("port")})
    assert bits == {TCP: 0b1100}
    assert (members["with_port"], members["port"]) == (0b11, 53)


def test_nobody_wants_anything() -> None:
    assert table({}) == bytes(4 * (PROTOCOLS + 4))


@pytest.mark.parametrize("number", [0, 15])
def test_the_first_and_the_last_number_have_a_bit(number: int) -> None:
    assert made({number: wish("udp")})[0] == {UDP: 1 << number}
