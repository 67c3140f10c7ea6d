"""View `sni`: makes one row for each TLS ClientHello, from the TCP segments or QUIC packets that carry it.

The trap: a hello may come twice. A retransmitted one is the same; and if a server requests another key
(HelloRetryRequest), the client repeats the name on the same connection, which makes no new row.
"""

from collections.abc import Mapping
from typing import Any

from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.protocols.client_hello import MOST_BYTES, BrokenHello, ClientHello, from_handshake, from_records
from kubectl_gadget.protocols.packets import UDP, Packet, packets
from kubectl_gadget.protocols.tcp import Connections, Stream
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.row_writer import RowWriter, asks_for_process
from kubectl_gadget.rows.stage import Stage

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

    def __init__(self, gadget: Gadget, parameters: Mapping[str, Any]) -> None:
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
