"""The tables of bpf/network_policy.bpf.c as bytes, and the decision that they give for one attempt."""

import ipaddress
import struct
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

# Blocks of addresses and ranges of ports as prefixes, for lookups in the kernel's tries.
#
# IPv4 is stored in IPv6 as ::ffff:1.2.3.4. ::/0 stands for IPv6 only, though it contains these numbers.

ADDRESS_BITS, PORT_BITS = 128, 16
_MAPPED = 0xFFFF << 32


class AddressBlock(NamedTuple):
    """A block of addresses as 128-bit numbers. `bits` is the length of the prefix in these."""

    first: int
    bits: int
    is_v4: bool

    def holds(self, other: "AddressBlock") -> bool:
        """Return True if this block contains all of the other one."""
        shift = ADDRESS_BITS - self.bits
        return self.is_v4 == other.is_v4 and self.bits <= other.bits and self.first >> shift == other.first >> shift

    def around(self, bits: int) -> "AddressBlock":
        """The block with a prefix of `bits` that contains this one."""
        shift = ADDRESS_BITS - bits
        return AddressBlock(self.first >> shift << shift, bits, self.is_v4)

    @property
    def packed(self) -> bytes:
        return self.first.to_bytes(16, "big")


ALL = (AddressBlock(_MAPPED, 96, True), AddressBlock(0, 0, False))
"""All of IPv4 and all of IPv6."""


@lru_cache(65536)
def block(cidr: str) -> AddressBlock:
    """The block for a CIDR or a single address. Raises ValueError."""
    network = ipaddress.ip_network(cidr, strict=False)
    number = int(network.network_address)
    if network.version == 4:
        return AddressBlock(_MAPPED | number, 96 + network.prefixlen, True)
    return AddressBlock(number, network.prefixlen, number >> 32 == 0xFFFF and network.prefixlen >= 96)


def port_prefixes(first: int, last: int) -> Iterator[tuple[int, int]]:
    """The fewest prefixes that cover exactly these ports: (port, bits)."""
    while first <= last:
        size = first & -first if first else 1 << PORT_BITS
        while first + size - 1 > last:
            size //= 2
        yield first, PORT_BITS - size.bit_length() + 1
        first += size


# The tables of bpf/network_policy.bpf.c as bytes, and the decision that they give for one attempt.
#
# An isolated pod may use exactly what is in `ports`. The trap: the tries store IPv4 addresses as ::ffff:1.2.3.4, and
# ports in network byte order.


UNMATCHED, ANYONE = 0, (1 << 32) - 1
"""UNMATCHED: a peer that no rule matches. ANYONE: stands for all peers in rules that allow everyone."""
EGRESS, INGRESS = 1, 2
PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}
PEER, PEER_NODE, PEER_SERVICE = 0, 1, 2
_POD, _HOST, _CUT_OFF = 1, 2, 3
_POLICIES, _RULE, _NAME = 248, 128, 160
_ANY_PROTOCOL, _ANY_PORT = 72, 80
_ALLOWED = struct.pack("<I", 1)
_RELAYED = 0x100 << 112
"""100::/64, a prefix that no host uses (RFC 6666): holds a peer for each number that add_relayed() gets"""


class ObjectNumbers(dict[Hashable, int]):
    """Numbers sets of policies, or peers, from 1. The trap: if a number changed its meaning during a run, the kernel
    would make wrong decisions until the last entry is replaced."""

    def __missing__(self, key: Hashable) -> int:
        return self.setdefault(key, len(self) + 1)


@dataclass
class PolicyTables:
    """The tables, by the names of the maps in C without `gadget_table_`."""

    subjects: dict[bytes, bytes] = field(default_factory=dict)
    peers: dict[bytes, bytes] = field(default_factory=dict)
    ports: dict[bytes, bytes] = field(default_factory=dict)
    rules: dict[bytes, bytes] = field(default_factory=dict)
    pods: dict[str, bytes] = field(default_factory=dict)
    """by NAMESPACE/NAME and by UID"""
    namespaces: dict[str, bytes] = field(default_factory=dict)
    """for pods that are not known yet"""

    def add_subject(self, subject: int, egress: list[str] | None, ingress: list[str] | None) -> None:
        """Adds a subject: the names of the policies that isolate it in each direction; None: not isolated."""
        isolated = EGRESS * (egress is not None) | INGRESS * (ingress is not None)
        names = [_text(", ".join(names or ()), _POLICIES) for names in (egress, ingress)]
        self.subjects[struct.pack("<I", subject)] = struct.pack("<Q", isolated) + b"".join(names)

    def add_peer(self, found: AddressBlock, peer: int, kind: int, name: str) -> None:
        """Assigns a block of addresses to a peer."""
        value = struct.pack("<II", peer, kind) + _text(name, _NAME)
        self.peers[struct.pack("<I", found.bits) + found.packed] = value

    def allow(self, subject: int, direction: int, peer: int) -> None:
        """Allows all ports of all protocols."""
        self.ports[_port_key(_ANY_PROTOCOL, subject, peer, direction)] = _ALLOWED

    def allow_port(self, subject: int, direction: int, peer: int, protocol: str, port: int = 0, bits: int = 0) -> None:
        """Allows ports that begin with the first `bits` of `port`."""
        key = _port_key(_ANY_PORT + bits, subject, peer, direction, PROTOCOLS[protocol], port)
        self.ports[key] = _ALLOWED

    def add_relayed(self, number: int, name: str) -> None:
        """Adds the peer behind ports that nodes relay; allow_port() allows calling it, by the node's port."""
        self.add_peer(AddressBlock(_RELAYED | number, ADDRESS_BITS, False), number, PEER_SERVICE, name)

    def relay(self, number: int, is_v4: bool, protocol: str, port: int) -> None:
        """A port of this node that leads to the relayed peer `number`."""
        self.ports[relay_key(is_v4, protocol, port)] = struct.pack("<I", number)

    def add_rule(self, subject: int, direction: int, peer: int, name: str) -> None:
        """The first rule that matches a peer; later ones are ignored."""
        self.rules.setdefault(struct.pack("<III", subject, peer, direction), _text(name, _RULE))

    def allows_peer(self, subject: int, direction: int, found: tuple[int, int], protocol: str, port: int) -> bool:
        """The kernel's decision with these tables, for an isolated subject and a peer from peer_at()."""
        peer, kind = found
        if kind == PEER_NODE:
            return True
        return any(
            self._has_port(subject, direction, candidate, PROTOCOLS[protocol], port)
            for candidate in ([peer] if kind == PEER_SERVICE else [peer, ANYONE])
        )

    def peer_at(self, address: str) -> tuple[int, int]:
        """Number and kind of the peer with the longest prefix that contains the address."""
        number = block(address).first
        for bits in range(ADDRESS_BITS, -1, -1):
            first = number >> (ADDRESS_BITS - bits) << (ADDRESS_BITS - bits)
            if value := self.peers.get(struct.pack("<I", bits) + first.to_bytes(16, "big")):
                peer, kind = struct.unpack_from("<II", value)
                return peer, kind
        return UNMATCHED, PEER

    def _has_port(self, subject: int, direction: int, peer: int, protocol: int, port: int) -> bool:
        return _port_key(_ANY_PROTOCOL, subject, peer, direction) in self.ports or any(
            _port_key(_ANY_PORT + bits, subject, peer, direction, protocol, port >> (16 - bits) << (16 - bits))
            in self.ports
            for bits in range(16, -1, -1)
        )


def pod_entry(subject: int, addresses: tuple[str, ...] = ()) -> bytes:
    """A value in the table of containers. A pod may use its own addresses whatever the policies say."""
    own = [block(address).packed for address in addresses[:2]]
    own += [bytes(16)] * (2 - len(own))
    return struct.pack("<II", subject, _POD) + b"".join(own)


def cut_off_entry(subject: int) -> bytes:
    """The same for a pod that may not communicate with anyone, except over loopback. `subject` is not 0."""
    return struct.pack("<II", subject, _CUT_OFF) + bytes(32)


HOST_ENTRY = struct.pack("<II", 0, _HOST) + bytes(32)
"""The value for cgroups to which no policy applies."""


def _port_key(bits: int, subject: int, peer: int, direction: int, protocol: int = 0, port: int = 0) -> bytes:
    return struct.pack("<IIIBB", bits, subject, peer, direction, protocol) + struct.pack(">H", port)


def relay_key(is_v4: bool, protocol: str, port: int) -> bytes:
    return _port_key(_ANY_PORT + PORT_BITS, 0, 4 if is_v4 else 6, EGRESS, PROTOCOLS[protocol], port)


def _text(text: str, size: int) -> bytes:
    data = text.encode()
    if len(data) >= size:
        data = data[: size - 4].decode(errors="ignore").encode() + "…".encode()
    return data.ljust(size, b"\0")
