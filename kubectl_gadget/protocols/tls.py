"""View `sni`: one row for each TLS ClientHello (RFC 8446, 4.1.2), from the TCP segments or QUIC packets that carry it.

Every length comes from an untrusted sender and may be false. A read beyond the end raises BrokenHello: the bytes are
not a ClientHello. None means that the rest has not arrived yet.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.protocols.tcp import UDP, Connections, Packet, Stream, packets
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.views import RowWriter, Stage, asks_for_process

# Reads a TLS ClientHello (RFC 8446, 4.1.2), and extracts it from the records that carry it.


_HANDSHAKE = 22
_CLIENT_HELLO = 1
_RECORD_HEAD = 5
_MOST_RECORD = 1 << 14
MOST_BYTES = 1 << 16
"""Longer hellos are not read."""

_SERVER_NAME, _ALPN, _SUPPORTED_VERSIONS, _ECH = 0, 16, 43, 0xFE0D
_HOST_NAME = 0
_KNOWN_VERSIONS = range(0x0300, 0x0305)


class BrokenHello(ValueError):
    """These bytes are not a ClientHello."""


@dataclass
class ClientHello:
    """The fields of a ClientHello that are shown. `name` is None if the client does not send a server name."""

    version: int
    name: bytes | None = None
    alpn: list[bytes] = field(default_factory=list)
    ech: bool = False
    ciphers: list[int] = field(default_factory=list)


class Reader:
    """Reads bytes from the front."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def __bool__(self) -> bool:
        return self._place < len(self._data)

    def take(self, count: int) -> bytes:
        end = self._place + count
        if end > len(self._data):
            raise BrokenHello(f"{count} bytes are needed, but {len(self._data) - self._place} are left")
        taken, self._place = self._data[self._place : end], end
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def block(self, size: int) -> "Reader":
        """Reads a block whose length is in the `size` bytes in front of it."""
        return Reader(self.rest(size))

    def rest(self, size: int) -> bytes:
        return self.take(self.number(size))


def from_records(data: bytes) -> ClientHello | None:
    """Parses the hello in TLS records; None if it is incomplete. Raises BrokenHello."""
    handshake = b""
    while data:
        if data[0] != _HANDSHAKE or (len(data) > 1 and data[1] != 3):
            raise BrokenHello("it is not a handshake")
        if len(data) < _RECORD_HEAD:
            return None
        length = int.from_bytes(data[3:5])
        if not 0 < length <= _MOST_RECORD:
            raise BrokenHello(f"a record of {length} bytes")
        handshake += data[_RECORD_HEAD : _RECORD_HEAD + length]
        found = from_handshake(handshake)
        if found is not None or len(data) < _RECORD_HEAD + length:
            return found
        data = data[_RECORD_HEAD + length :]
    return None


def from_handshake(data: bytes) -> ClientHello | None:
    """Parses the hello in handshake bytes, as QUIC carries them; None if it is incomplete. Raises BrokenHello."""
    if data and data[0] != _CLIENT_HELLO:
        raise BrokenHello("it is not a ClientHello")
    if len(data) < 4:
        return None
    length = int.from_bytes(data[1:4])
    if length > MOST_BYTES:
        raise BrokenHello(f"{length} bytes")
    return _read(Reader(data[4 : 4 + length])) if len(data) >= 4 + length else None


def _read(hello: Reader) -> ClientHello:
    found = ClientHello(hello.number(2))
    hello.take(32)
    hello.rest(1)
    ciphers = hello.block(2)
    while ciphers:
        number = ciphers.number(2)
        if number & 0x0F0F != 0x0A0A:  # numbers that do not exist (GREASE, RFC 8701)
            found.ciphers.append(number)
    hello.rest(1)
    extensions = hello.block(2) if hello else Reader(b"")
    while extensions:
        kind = extensions.number(2)
        _extension(found, kind, extensions.block(2))
    return found


def _extension(hello: ClientHello, kind: int, content: Reader) -> None:
    if kind == _SERVER_NAME:
        names = content.block(2)
        while names:
            is_host = names.number(1) == _HOST_NAME
            name = names.rest(2)
            if is_host and hello.name is None:
                hello.name = name
    elif kind == _ALPN:
        protocols = content.block(2)
        while protocols:
            hello.alpn.append(protocols.rest(1))
    elif kind == _SUPPORTED_VERSIONS:
        versions = content.block(1)
        offered = []
        while versions:
            offered.append(versions.number(2))
        # Clients also offer versions that do not exist, to test that servers tolerate them (GREASE, RFC 8701).
        hello.version = max((version for version in offered if version in _KNOWN_VERSIONS), default=hello.version)
    elif kind == _ECH:
        hello.ech = True


# View `sni`: makes one row for each TLS ClientHello, from the TCP segments or QUIC packets that carry it.


_CLIENT, _SERVER = 1, 2


class _Tls:
    """The ClientHellos of one TCP connection."""

    def __init__(self) -> None:
        self._begin = -1
        self._stream = Stream()
        self._bytes = b""
        self._over = True
        self.reported: set[bytes | None] = set()

    def feed(self, packet: Packet) -> ClientHello | None:
        if self._over:
            if packet.sequence == self._begin:
                return None
            self._begin, self._stream, self._bytes, self._over = packet.sequence, Stream(), b"", False
        try:
            found = None
            for piece in self._stream.feed(packet):
                if isinstance(piece, int) or len(self._bytes) > MOST_BYTES:
                    raise BrokenHello("a part of it is missing")
                self._bytes += piece
                found = found or from_records(self._bytes)
        except BrokenHello:
            # It only started like a ClientHello.
            self._over = True
            return None
        self._over = found is not None
        return found


class _Quic:
    """The ClientHello of one QUIC connection."""

    def __init__(self) -> None:
        from kubectl_gadget.protocols.quic import QuicHello

        self._hello = QuicHello()
        self.reported: set[bytes | None] = set()

    def feed(self, packet: Packet) -> ClientHello | None:
        from kubectl_gadget.protocols.quic import NotQuicError

        try:
            return from_handshake(self._hello.feed(packet.payload))
        except (NotQuicError, BrokenHello):
            # A server's packet, or another protocol that looks similar.
            return None


class Sni(Stage):
    """The view's stage (stage.py)."""

    def __init__(self, gadget: Gadget, parameters: Mapping[str, object]) -> None:
        self._writer = RowWriter(gadget.record, asks_for_process(parameters))
        self._tls = Connections(_Tls)
        self._quic = Connections(_Quic)

    def rows(self, sent: Batch, complete_until: int) -> bytes:
        for packet in packets(sent):
            connection = (self._quic if packet.protocol == UDP else self._tls).of(packet)
            hello = connection.feed(packet)
            if hello is not None and hello.name not in connection.reported:
                connection.reported = {hello.name}
                self._write(packet, hello)
        return self._writer.take()

    def _write(self, packet: Packet, hello: ClientHello) -> None:
        self._writer.add(
            packet.head,
            packet.time,
            {
                "local": packet.local,
                "local_port": packet.local_port,
                "remote": packet.remote,
                "remote_port": packet.remote_port,
                "protocol": packet.protocol,
                "version": hello.version,
                "role": _CLIENT if packet.outgoing else _SERVER,
                "name": hello.name,
                "alpn": [protocol.decode("utf-8", "surrogateescape") for protocol in hello.alpn],
                "ech": int(hello.ech),
            },
        )
