"""Connects network namespaces: bridges, and cables (veth pairs) from them to pods, with iproute2.

A namespace is named by its file, /proc/PID/ns/net or /run/netns/NAME; the empty name is this machine's. The trap: a
cable disappears with either of the namespaces that it connects, so nothing here is ever removed by name.

Pods get addresses that no route of this machine covers. Their network is separate from the machine's, so both could
have the same address, but people could not tell the two apart: gadgets show addresses, and `flows` matches the two
sides of a connection by them.
"""

import ipaddress
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from kubectl_gadget.demo.runc import find_program
from kubectl_gadget.errors import GadgetError

_BLOCKS = tuple(
    map(ipaddress.IPv4Network, ("10.213.77.0/24", "172.29.213.0/24", "192.168.213.0/24", "198.18.213.0/24"))
)
"""private blocks (RFC 1918), and finally one for benchmarks between networks (RFC 2544), which real networks do not
use"""


def namespace_of(pid: int | None) -> str:
    """The file of a process's network namespace."""
    return f"/proc/{pid}/ns/net"


def ip_lines(lines: Sequence[str], within: str = "") -> None:
    """Runs several ip commands in one process, up to the first that fails. Raises GadgetError with ip's message."""
    enter = [find_program("nsenter", "util-linux"), f"--net={within}"] if within else []
    command = [*enter, find_program("ip", "iproute2"), "-batch", "-"]
    done = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().partition("\n")[0] or f"exit code {done.returncode}"
        raise GadgetError(f"the network between pods cannot be created: ip: {reason}")


def make_bridge(name: str, address: str, within: str) -> None:
    """Makes a bridge with an address, such as 10.9.0.1/24."""
    ip_lines([f"link add {name} type bridge", f"address add {address} dev {name}", f"link set {name} up"], within)


def lay_cable(pid: int | None, end: str, bridge: str, addresses: Sequence[str], within: str) -> None:
    """Connects a process's namespace to the bridge. The cable is called `end` at the bridge, and eth0 with these
    addresses in the namespace. IPv6 duplicate address detection is off."""
    outside = f"link add {end} type veth peer name eth0 netns {pid}", f"link set {end} master {bridge} up"
    ip_lines(outside, within)
    inside = [f"address add {address} dev eth0 {'nodad' if ':' in address else ''}" for address in addresses]
    ip_lines([*inside, "link set lo up", "link set eth0 up"], namespace_of(pid))


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
