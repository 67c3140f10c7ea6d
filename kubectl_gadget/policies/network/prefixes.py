"""Blocks of addresses and ranges of ports as prefixes, for lookups in the kernel's tries.

IPv4 is stored in IPv6 as ::ffff:1.2.3.4. The trap: ::/0 stands for IPv6 only, though it contains these numbers.
"""

import ipaddress
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

ADDRESS_BITS, PORT_BITS = 128, 16
_MAPPED = 0xFFFF << 32


class AddressBlock(NamedTuple):
    """A block of addresses as 128-bit numbers. `bits` is the length of the prefix in these."""

    first: int
    bits: int
    is_v4: bool

    def holds(self, other: "AddressBlock") -> bool:
        """Whether this block contains all of the other one."""
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
