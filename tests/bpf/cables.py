"""Network namespaces that are connected: bridges, and cables from them to pods, by iproute2.

A namespace is named by the file that holds it, /proc/PID/ns/net or /run/netns/NAME; the empty name is this machine's.
"""

import subprocess
from collections.abc import Sequence


def namespace_of(pid: int | None) -> str:
    """The file of a process's network namespace."""
    return f"/proc/{pid}/ns/net"


def ip(*words: str, within: str = "") -> None:
    """Runs ip."""
    enter = ["nsenter", f"--net={within}"] if within else []
    subprocess.run([*enter, "ip", *words], check=True)


def make_bridge(name: str, address: str, within: str) -> None:
    """A bridge with an address of its own, such as 10.9.0.1/24."""
    ip("link", "add", name, "type", "bridge", within=within)
    ip("address", "add", address, "dev", name, within=within)
    ip("link", "set", name, "up", within=within)


def lay_cable(pid: int | None, end: str, bridge: str, addresses: Sequence[str], within: str) -> None:
    """From the bridge, where it has the name `end`, to a process's namespace, where it is eth0 with these addresses.
    IPv6 needs no search for others with the same address."""
    inside = namespace_of(pid)
    ip("link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", str(pid), within=within)
    ip("link", "set", end, "master", bridge, "up", within=within)
    for address in addresses:
        ip("address", "add", address, "dev", "eth0", *(["nodad"] if ":" in address else []), within=inside)
    for name in ("lo", "eth0"):
        ip("link", "set", name, "up", within=inside)
