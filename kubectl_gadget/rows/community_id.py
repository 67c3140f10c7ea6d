"""Community ID, version 1, seed 0: an identifier of a flow that Zeek, Suricata and Wireshark also compute.

Source: the specification, https://github.com/corelight/community-id-spec. Both directions have the same identifier, so
the smaller endpoint comes first; for a ping, the types of request and reply take the place of the ports.
"""

import binascii
import hashlib
import socket
import struct
from functools import lru_cache

_NUMBERS = {"ICMP": 1, "TCP": 6, "UDP": 17, "ICMPv6": 58, "SCTP": 132}
_PORTS = struct.Struct(">BxHH")
_PING = {"ICMP": (8, 0), "ICMPv6": (128, 129)}
"""echo request and echo reply"""


def community_id(protocol: str, client: tuple[str, int], server: tuple[str, int]) -> str:
    """`1:LQU9qZlK+B5F3KDmev6m5PMibrg=`, from addresses and ports of both ends. Raises KeyError for other protocols."""
    ports = _PING.get(protocol) or (client[1], server[1])
    first, second = (_packed(client[0]), ports[0]), (_packed(server[0]), ports[1])
    if second < first:
        first, second = second, first
    data = b"\0\0" + first[0] + second[0] + _PORTS.pack(_NUMBERS[protocol], first[1], second[1])
    digest = hashlib.sha1(data, usedforsecurity=False).digest()
    return f"1:{binascii.b2a_base64(digest, newline=False).decode()}"


@lru_cache(65536)
def _packed(ip: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip)
