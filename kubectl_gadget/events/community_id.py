"""Community ID, version 1, seed 0: an identifier of a flow that Zeek, Suricata and Wireshark also compute.

Source: the specification, https://github.com/corelight/community-id-spec. The trap: both directions have the same
identifier, so the smaller endpoint comes first; for a ping, the types of request and reply take the place of the ports.
"""

import binascii
import hashlib
import socket
import struct
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]
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


def tcp_ids(
    clients: Sequence[str], client_ports: Sequence[int], servers: Sequence[str], server_ports: Sequence[int]
) -> list[str]:
    """community_id() of many TCP connections, a column at a time for IPv4."""
    ends = (list(map(_packed, clients)), client_ports), (list(map(_packed, servers)), server_ports)
    if set(map(len, ends[0][0])) | set(map(len, ends[1][0])) != {4}:
        known = zip(zip(clients, client_ports, strict=True), zip(servers, server_ports, strict=True), strict=True)
        return [community_id("TCP", client, server) for client, server in known]
    one, other = (
        (np.frombuffer(b"".join(ips), ">u4").astype(np.uint64) << 16) | np.array(ports, np.uint64)
        for ips, ports in ends
    )
    first, second = np.minimum(one, other), np.maximum(one, other)
    words = np.zeros((16, len(clients)), np.uint32)
    # seed, both addresses, protocol, both ports; then the padding of SHA-1, and the length in bits
    words[0], words[1] = first >> 32, (first & 0xFFFF0000) | (second >> 32)
    words[2] = (second & 0xFFFF0000) | _NUMBERS["TCP"] << 8
    words[3] = (first & 0xFFFF) << 16 | (second & 0xFFFF)
    words[4], words[15] = 1 << 31, 128
    encoded = binascii.b2a_base64(_sha1(list(words)).tobytes(), newline=False).decode()
    return ["1:" + encoded[place : place + 27] + "=" for place in range(0, len(encoded), 28)]


def _sha1(words: list[Words]) -> npt.NDArray[np.uint8]:
    """FIPS 180-4, section 6.1, of one block for each column of the 16 words. A digest is followed by a byte of zero."""
    begin = [np.full(len(words[0]), word, np.uint32) for word in _BEGIN]
    a, b, c, d, e = begin
    for round in range(80):
        if round >= 16:
            words.append(_rotated(words[-3] ^ words[-8] ^ words[-14] ^ words[-16], 1))
        part = round // 20
        mixed = d ^ (b & (c ^ d)) if part == 0 else (b & c) | (d & (b | c)) if part == 2 else b ^ c ^ d
        a, b, c, d, e = _rotated(a, 5) + mixed + e + _CONSTANTS[part] + words[round], a, _rotated(b, 30), c, d
    digests = np.zeros((len(a), 6), ">u4")
    for place, (before, after) in enumerate(zip(begin, (a, b, c, d, e), strict=True)):
        digests[:, place] = before + after
    return digests.view(np.uint8)[:, :21]


def _rotated(words: Words, bits: int) -> Words:
    return words << np.uint32(bits) | words >> np.uint32(32 - bits)


_BEGIN = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0)
_CONSTANTS = tuple(map(np.uint32, (0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xCA62C1D6)))
