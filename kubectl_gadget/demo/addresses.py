"""Unused addresses for pods: a block that no route of this machine leads to.

The pods' network is apart from the machine's, so an address that both have would disturb neither of them. It would
confuse the reader: gadgets show addresses, and `flows` takes the two sides of a connection together by them.
"""

import ipaddress
import sys
from pathlib import Path

_BLOCKS = tuple(
    map(ipaddress.IPv4Network, ("10.213.77.0/24", "172.29.213.0/24", "192.168.213.0/24", "198.18.213.0/24"))
)
"""private ones (RFC 1918), and last one for measurements between networks (RFC 2544), which no network has"""


def free_block(routes: Path = Path("/proc/net/route")) -> ipaddress.IPv4Network:
    """The first block that overlaps with no route; the last one when all of them do."""
    taken = list(_routed(routes))
    return next((block for block in _BLOCKS if not any(map(block.overlaps, taken))), _BLOCKS[-1])


def _routed(routes: Path) -> list[ipaddress.IPv4Network]:
    """The networks that routes lead to, but for the default route (proc(5))."""
    if not routes.exists():  # a kernel that has no IPv4, or no routes in /proc
        return []
    fields = [line.split() for line in routes.read_text().splitlines()[1:]]
    pairs = [(_number(line[1]), _number(line[7])) for line in fields if len(line) > 7]
    return [ipaddress.IPv4Network((address & mask, mask.bit_count())) for address, mask in pairs if mask]


def _number(text: str) -> int:
    """The kernel prints the four bytes of an address as one number in the machine's own order."""
    return int.from_bytes(int(text, 16).to_bytes(4, sys.byteorder), "big")
