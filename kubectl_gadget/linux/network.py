"""Names of Linux's network constants: families, protocols, TCP states and flags; and addresses as text.

An IPv4 address comes as an IPv6 one (::ffff:1.2.3.4) and is shown as IPv4, whatever the kind of socket.
"""

import socket

from kubectl_gadget.linux.tables import Namer, flag_names
from kubectl_gadget.wire.kernel_enums import TCP_STATES

_FAMILIES = {1: "unix", 2: "IPv4", 10: "IPv6", 16: "netlink", 17: "packet", 38: "alg", 40: "vsock", 44: "xdp"}
_PROTOCOLS = {
    0: "IP", 1: "ICMP", 2: "IGMP", 6: "TCP", 17: "UDP", 33: "DCCP", 41: "IPv6", 47: "GRE", 50: "ESP", 51: "AH",
    58: "ICMPv6", 132: "SCTP", 136: "UDPLITE", 255: "RAW", 262: "MPTCP",
    0xFF11: "PACKET", 0xFF2C: "XDP",
}  # fmt: skip
"""The last two are no protocols, but kinds of sockets (bpf/snapshot_socket.bpf.c)."""
family_name = Namer(_FAMILIES)
"""`IPv4` for AF_INET"""
protocol_name = Namer(_PROTOCOLS)
"""`TCP` for IPPROTO_TCP"""
icmp_type_name = Namer({8: "echo request", 128: "echo request v6"})
"""of an ICMP or ICMPv6 message (IANA's ICMP parameters)"""
tcp_state_name = Namer(TCP_STATES, none=0)
"""`ESTABLISHED` for TCP_ESTABLISHED (include/net/tcp_states.h); empty for 0, which means no state"""
_TCP_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")
_MAPPED = bytes(10) + b"\xff\xff"
_NO_ADDRESS = b"\xff" * 16


def tcp_flag_names(flags: int) -> str:
    """`SYN|ACK` for the flags of a TCP header (RFC 9293), lowest bit first; bits without a name come last, in hex."""
    return flag_names(flags, [(1 << bit, name) for bit, name in enumerate(_TCP_FLAGS)])


def address_text(address: bytes) -> str | None:
    """`127.0.0.1` or `2001:db8::1` (RFC 5952) for 16 bytes, which may lack trailing NULs; None: no address."""
    address = address.ljust(16, b"\0")
    if address == _NO_ADDRESS:
        return None
    if address.startswith(_MAPPED):
        return ".".join(map(str, address[12:]))
    return socket.inet_ntop(socket.AF_INET6, address)
