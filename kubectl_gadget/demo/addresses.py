"""Unused addresses for pods: a block that no route of this machine covers.

The pods' network is separate from the machine's, so an address that both have would disturb neither. It would confuse
the reader: gadgets show addresses, and `flows` matches the two sides of a connection by them.
"""

import ipaddress
import sys
from pathlib import Path

_BLOCKS = tuple(
    map(ipaddress.IPv4Network, ("10.213.77.0/24", "172.29.213.0/24", "192.168.213.0/24", "198.18.213.0/24"))
)
"""private blocks (RFC 1918), and finally one for benchmarks between networks (RFC 2544), which real networks do not
use"""


def free_block(routes: Path = Path("/proc/net/route")) -> ipaddress.IPv4Network:
    """The first block that overlaps with no route; the last one if all of them do."""
    taken = list(_routed(routes))
    return next((block for block in _BLOCKS if not any(map(block.overlaps, taken))), _BLOCKS[-1])


def _routed(routes: Path) -> list[ipaddress.IPv4Network]:
    """The destinations of routes, except the default route (proc(5))."""
    if not routes.exists():  # a kernel without IPv4, or without routes in /proc
        return []
    fields = [line.split() for line in routes.read_text().splitlines()[1:]]
    pairs = [(_number(line[1]), _number(line[7])) for line in fields if len(line) > 7]
    return [ipaddress.IPv4Network((address & mask, mask.bit_count())) for address, mask in pairs if mask]


def _number(text: str) -> int:
    """Parses an address: the kernel prints its four bytes as one number in host byte order."""
    return int.from_bytes(int(text, 16).to_bytes(4, sys.byteorder), "big")
