"""Community ID, version 1, seed 0: an identifier of a flow that Zeek, Suricata and Wireshark also compute.

Source: the specification, https://github.com/corelight/community-id-spec. The trap: both directions have the same
identifier, so the smaller endpoint comes first; for a ping, the types of request and reply take the place of the ports.
"""

import base64
import hashlib
import socket
import struct
from functools import lru_cache

_NUMBERS = {"ICMP": 1, "TCP": 6, "UDP": 17, "ICMPv6": 58, "SCTP": 132}
_PING = {"ICMP": (8, 0), "ICMPv6": (128, 129)}
"""echo request and echo reply"""


def community_id(protocol: str, client: tuple[str, int], server: tuple[str, int]) -> str:
    """`1:LQU9qZlK+B5F3KDmev6m5PMibrg=`, from addresses and ports of both ends. Raises KeyError for other protocols."""
    ports = _PING.get(protocol, (client[1], server[1]))
    ends = sorted((_packed(ip), port) for ip, port in zip((client[0], server[0]), ports, strict=True))
    (first, first_port), (second, second_port) = ends
    data = b"\0\0" + first + second + struct.pack(">BxHH", _NUMBERS[protocol], first_port, second_port)
    return "1:" + base64.b64encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()


@lru_cache(65536)
def _packed(ip: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip)
