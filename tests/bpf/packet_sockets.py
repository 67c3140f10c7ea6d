"""Sends packets with their headers, in each way that Linux has: packet sockets, their rings, and AF_XDP.

Each way sends a whole IP packet; `WAYS` has them by name. What a pod does is pickled, so all of it has to be a function
of a module.
"""

import ctypes
import mmap
import os
import socket
import struct
from collections.abc import Callable, Sequence

ETH_P_IP, ETH_P_IPV6, ETH_P_ALL = 0x0800, 0x86DD, 0x0003
SOL_PACKET, PACKET_TX_RING, PACKET_QDISC_BYPASS, PACKET_RX_RING = 263, 13, 20, 5
AF_XDP, SOL_XDP = 44, 283
XDP_MMAP_OFFSETS, XDP_TX_RING, XDP_UMEM_REG, XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING = 1, 3, 4, 5, 6
XDP_COPY = 2
XDP_PGOFF_TX_RING = 0x80000000
BROADCAST = b"\xff" * 6
FRAME, FRAMES = 2048, 64
_RING_HEAD = 32
"""TPACKET_HDRLEN without the address, for TPACKET_V1"""
_libc = ctypes.CDLL(None, use_errno=True)


def checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp_packet(source: tuple[str, int], target: tuple[str, int], payload: bytes) -> bytes:
    """An IP packet with a UDP datagram."""
    kind = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
    ends = socket.inet_pton(kind, source[0]), socket.inet_pton(kind, target[0])
    length = 8 + len(payload)
    udp = struct.pack("!HHHH", source[1], target[1], length, 0)
    if kind == socket.AF_INET6:
        pseudo = ends[0] + ends[1] + struct.pack("!I3xB", length, socket.IPPROTO_UDP)
        udp = udp[:6] + struct.pack("!H", checksum(pseudo + udp + payload) or 0xFFFF)
        return struct.pack("!IHBB", 6 << 28, length, socket.IPPROTO_UDP, 64) + ends[0] + ends[1] + udp + payload
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + length, 0, 0, 64, socket.IPPROTO_UDP, 0, *ends)
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return head + udp + payload


def _protocol(packet: bytes) -> int:
    return ETH_P_IPV6 if packet[0] >> 4 == 6 else ETH_P_IP


def hardware_address(device: str) -> bytes:
    """Return the address of a device in this network namespace."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((device, 0))
        return bytes(sock.getsockname()[4])


def frame(device: str, packet: bytes, to: bytes = BROADCAST) -> bytes:
    return to + hardware_address(device) + struct.pack("!H", _protocol(packet)) + packet


def raw(device: str, packets: Sequence[bytes], to: bytes, bypass: bool = False) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        if bypass:
            sock.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        sock.bind((device, 0))
        for packet in packets:
            sock.send(frame(device, packet, to))


def bypassing(device: str, packets: Sequence[bytes], to: bytes) -> None:
    raw(device, packets, to, bypass=True)


def datagrams(device: str, packets: Sequence[bytes], to: bytes) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as sock:
        for packet in packets:
            sock.sendto(packet, (device, _protocol(packet), 0, 0, to))


def messages(device: str, packets: Sequence[bytes], to: bytes) -> None:
    """In one call of sendmmsg."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((device, 0))
        texts = [ctypes.create_string_buffer(frame(device, packet, to)) for packet in packets]
        vectors = [struct.pack("QQ", ctypes.addressof(text), len(text) - 1) for text in texts]
        kept = ctypes.create_string_buffer(b"".join(vectors))
        heads = b"".join(
            struct.pack("QIIQQQQiiI4x", 0, 0, 0, ctypes.addressof(kept) + 16 * number, 1, 0, 0, 0, 0, 0)
            for number in range(len(texts))
        )
        assert len(heads) == 64 * len(texts)
        sent = _libc.sendmmsg(sock.fileno(), heads, len(texts), 0)
        assert sent == len(texts), os.strerror(ctypes.get_errno())


def ring(device: str, packets: Sequence[bytes], to: bytes, kind: int = socket.SOCK_RAW) -> None:
    """From memory that is shared with the kernel."""
    with socket.socket(socket.AF_PACKET, kind, 0) as sock:
        sock.setsockopt(SOL_PACKET, PACKET_TX_RING, struct.pack("IIII", FRAME * FRAMES, 1, FRAME, FRAMES))
        sock.bind((device, ETH_P_IP if kind == socket.SOCK_DGRAM else 0))
        with mmap.mmap(sock.fileno(), FRAME * FRAMES) as memory:
            for number, packet in enumerate(packets):
                data = packet if kind == socket.SOCK_DGRAM else frame(device, packet, to)
                start = number % FRAMES * FRAME
                memory[start + _RING_HEAD : start + _RING_HEAD + len(data)] = data
                struct.pack_into("QI", memory, start, 1, len(data))
                if kind == socket.SOCK_DGRAM:
                    sock.sendto(b"", (device, _protocol(packet), 0, 0, to))
                else:
                    sock.send(b"")


def ring_of_datagrams(device: str, packets: Sequence[bytes], to: bytes) -> None:
    ring(device, packets, to, socket.SOCK_DGRAM)


def xdp(device: str, packets: Sequence[bytes], to: bytes) -> None:
    """By AF_XDP, where the kernel copies: no program of XDP is needed for sending."""
    area = mmap.mmap(-1, FRAME * FRAMES)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    with socket.socket(AF_XDP, socket.SOCK_RAW, 0) as sock:
        sock.setsockopt(SOL_XDP, XDP_UMEM_REG, struct.pack("QQIIII", address, len(area), FRAME, 0, 0, 0))
        for name in (XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_TX_RING):
            sock.setsockopt(SOL_XDP, name, FRAMES)
        # producer, consumer, descriptors, flags; for rx, tx, fill and completion
        places = struct.unpack("16Q", sock.getsockopt(SOL_XDP, XDP_MMAP_OFFSETS, 128))
        producer, _, descriptors, _ = places[4:8]
        index = socket.if_nametoindex(device)
        name = struct.pack("HHIII", AF_XDP, XDP_COPY, index, 0, 0)
        if _libc.bind(sock.fileno(), name, len(name)):
            raise OSError(ctypes.get_errno(), f"bind of AF_XDP: {os.strerror(ctypes.get_errno())}")
        with mmap.mmap(sock.fileno(), descriptors + 16 * FRAMES, offset=XDP_PGOFF_TX_RING) as tx:
            for number, packet in enumerate(packets):
                data = frame(device, packet, to)
                start = number % FRAMES * FRAME
                area[start : start + len(data)] = data
                struct.pack_into("QII", tx, descriptors + 16 * (number % FRAMES), start, len(data), 0)
                struct.pack_into("I", tx, producer, number + 1)
                if _libc.sendto(sock.fileno(), None, 0, socket.MSG_DONTWAIT, None, 0):
                    raise OSError(ctypes.get_errno(), "sendto of AF_XDP")


Way = Callable[[str, Sequence[bytes], bytes], None]
WAYS: dict[str, Way] = {
    "raw": raw,
    "datagrams": datagrams,
    "messages": messages,
    "bypassing": bypassing,
    "ring": ring,
    "ring of datagrams": ring_of_datagrams,
    "xdp": xdp,
}


def send(
    way: str, device: str, source: tuple[str, int], target: tuple[str, int], payloads: Sequence[bytes], to: bytes
) -> int:
    """Sends datagrams in one of the ways. Returns the PID."""
    WAYS[way](device, [udp_packet(source, target, payload) for payload in payloads], to)
    return os.getpid()
