"""Decrypts the Initial packets of a QUIC client (RFC 9000, 9001, 9369), and extracts the TLS ClientHello.

Their keys are derived from the packet itself, so anyone can decrypt them. A server's first packets look the same, but
their keys depend on the client's packets; decrypting them fails, as for anything else that is not what it seems.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

_MOST_CRYPTO = 1 << 16
_SAMPLE = 16


@dataclass(frozen=True)
class _Version:
    salt: bytes
    initial: int
    """the packet type Initial, in bits 4 and 5 of the first byte"""
    prefix: str


VERSIONS = {
    1: _Version(bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"), 0, "quic "),
    0x6B3343CF: _Version(bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9"), 1, "quicv2 "),
}


class NotQuicError(ValueError):
    """These bytes are not an Initial packet of a QUIC client."""


@dataclass(frozen=True)
class _Keys:
    key: bytes
    iv: bytes
    header: bytes


def _expand(secret: bytes, label: str, length: int) -> bytes:
    name = b"tls13 " + label.encode()
    info = length.to_bytes(2) + len(name).to_bytes(1) + name + b"\0"
    return HKDFExpand(SHA256(), length, info).derive(secret)


def client_keys(version: _Version, connection_id: bytes) -> _Keys:
    extract = HMAC(version.salt, SHA256())
    extract.update(connection_id)
    secret = _expand(extract.finalize(), "client in", 32)
    return _Keys(
        *(_expand(secret, version.prefix + name, size) for name, size in (("key", 16), ("iv", 12), ("hp", 16)))
    )


@dataclass
class QuicHello:
    """The ClientHello of one connection, collected from several packets if necessary."""

    _keys: _Keys | None = None
    _pieces: dict[int, bytes] = field(default_factory=dict)

    def feed(self, datagram: bytes) -> bytes:
        """Takes a datagram. Returns the contiguous bytes from the start of the handshake. Raises NotQuicError."""
        try:
            for offset, data in crypto_frames(self._open(datagram)):
                if offset + len(data) <= _MOST_CRYPTO and len(data) > len(self._pieces.get(offset, b"")):
                    self._pieces[offset] = data
        except IndexError:
            raise NotQuicError("it ends too early") from None
        joined = b""
        for offset in sorted(self._pieces):
            if offset > len(joined):
                break
            joined += self._pieces[offset][len(joined) - offset :]
        return joined

    def _open(self, datagram: bytes) -> bytes:
        """Decrypts the frames in the first packet of a datagram."""
        version = VERSIONS.get(int.from_bytes(datagram[1:5]))
        if version is None or datagram[0] >> 4 != 0b1100 | version.initial:
            raise NotQuicError("another kind of packet")
        place = 5
        connection_id = datagram[place + 1 : place + 1 + datagram[place]]
        if len(connection_id) > 20:
            raise NotQuicError("the connection's id is too long")
        place += 1 + len(connection_id)
        place += 1 + datagram[place]
        length, place = _number(datagram, place)
        place += length
        length, place = _number(datagram, place)
        packet = datagram[: place + length]
        if length < 4 + _SAMPLE or len(packet) < place + length:
            raise NotQuicError("it ends too early")
        keys = self._keys or client_keys(version, connection_id)
        frames = _decrypt(packet, place, keys)
        # A client keeps these keys even after it has learned another ID of the server.
        self._keys = keys
        return frames


def _decrypt(packet: bytes, place: int, keys: _Keys) -> bytes:
    """Decrypts a packet. `place` is the position of the packet number."""
    sample = packet[place + 4 : place + 4 + _SAMPLE]
    mask = Cipher(algorithms.AES(keys.header), modes.ECB()).encryptor().update(sample)
    first = packet[0] ^ (mask[0] & 0x0F)
    size = (first & 3) + 1
    number = bytes(a ^ b for a, b in zip(packet[place : place + size], mask[1:], strict=False))
    head = bytes([first]) + packet[1:place] + number
    nonce = (int.from_bytes(keys.iv) ^ int.from_bytes(number)).to_bytes(12)
    try:
        return AESGCM(keys.key).decrypt(nonce, packet[place + size :], head)
    except (InvalidTag, ValueError):
        raise NotQuicError("it was not encrypted by a client") from None


def _number(data: bytes, place: int) -> tuple[int, int]:
    """Reads a number of 1, 2, 4 or 8 bytes, whose first two bits give its size. Returns it and the position after
    it."""
    size = 1 << (data[place] >> 6)
    if place + size > len(data):
        raise NotQuicError("it ends too early")
    return int.from_bytes(data[place : place + size]) & ((1 << (8 * size - 2)) - 1), place + size


def crypto_frames(frames: bytes) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes of each CRYPTO frame; other frame types that are allowed here are skipped."""
    place = 0
    while place < len(frames):
        kind, place = _number(frames, place)
        if kind in (0, 1):  # padding, ping
            continue
        if kind in (2, 3):
            place = _after_ack(frames, place, kind == 3)
        elif kind == 6:
            offset, place = _number(frames, place)
            length, place = _number(frames, place)
            if place + length > len(frames):
                raise NotQuicError("it ends too early")
            yield offset, frames[place : place + length]
            place += length
        else:
            return


def _after_ack(frames: bytes, place: int, counts: bool) -> int:
    _, place = _number(frames, place)
    _, place = _number(frames, place)
    ranges, place = _number(frames, place)
    for _ in range(1 + 2 * min(ranges, len(frames)) + 3 * counts):
        _, place = _number(frames, place)
    return place
