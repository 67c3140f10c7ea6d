"""View `http`: makes one row for each request of HTTP/1 and HTTP/2, when its response starts or will not come.

The start of a connection shows which version it is (http1.py, http2.py). HTTP/1 may be upgraded to HTTP/2.
"""

from collections.abc import Mapping
from errno import ECONNABORTED, ECONNRESET
from typing import Any

from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.protocols.http1 import Http1
from kubectl_gadget.protocols.http2 import PREFACE, Http2, looks_like_frames
from kubectl_gadget.protocols.http_exchange import HttpRows
from kubectl_gadget.protocols.tcp import FIN, RST, Connections, Packet, Stream, packets
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.views import Stage, asks_for_process


class _HttpConnection:
    def __init__(self, rows: HttpRows) -> None:
        self.streams = (Stream(), Stream())
        self.has_ended = [False, False]
        self.protocol: Http1 | Http2 | None = None
        self._rows = rows
        self._last = 0

    def feed(self, packet: Packet, piece: bytes | int) -> None:
        idle = packet.time - self._last if self._last else None
        self._last = packet.time
        begins = isinstance(piece, bytes) and piece.startswith(PREFACE)
        if self.protocol is None:
            is_http2 = begins or (isinstance(piece, bytes) and looks_like_frames(piece))
            self.protocol = Http2(self._rows) if is_http2 else Http1(self._rows)
        elif isinstance(self.protocol, Http1) and (self.protocol.successor or begins):
            self.protocol = self.protocol.successor or Http2(self._rows)
        if isinstance(self.protocol, Http1):
            self.protocol.idle = idle
        self.protocol.feed(packet, piece)


class Http(Stage):
    """The view's stage (stage.py). The parameter `wait` is the longest time that a request waits for its response."""

    def __init__(self, gadget: Gadget, parameters: Mapping[str, Any]) -> None:
        self._rows = HttpRows(gadget, asks_for_process(parameters))
        self._wait_ns = int(parameters["wait"]) * 1_000_000_000
        self._connections = Connections(lambda: _HttpConnection(self._rows))
        self._now = 0

    def rows(self, sent: Batch, complete_until: int) -> bytes:
        for packet in packets(sent):
            self._take(packet)
        self._now = max(self._now, complete_until)
        for exchange in self._rows.waiting.expired(complete_until - self._wait_ns):
            since = exchange.asked.time if exchange.asked else complete_until
            exchange.owner.give_up(exchange, max(since, min(since + self._wait_ns, complete_until)))
        for exchange in self._rows.answering.expired(-1):
            exchange.owner.give_up(exchange, complete_until)
        return self._rows.take()

    def rest(self) -> bytes:
        for waiting in (self._rows.waiting, self._rows.answering):
            for exchange in waiting.rest():
                exchange.owner.give_up(exchange, max(self._now, exchange.asked.time if exchange.asked else 0))
        return self._rows.take()

    def _take(self, packet: Packet) -> None:
        connection = self._connections.of(packet)
        for piece in connection.streams[packet.outgoing].feed(packet):
            connection.feed(packet, piece)
        connection.has_ended[packet.outgoing] |= bool(packet.flags & FIN)
        if packet.flags & (FIN | RST) and connection.protocol is not None:
            if packet.flags & RST:
                self._rows.errno = ECONNABORTED if packet.outgoing else ECONNRESET
            connection.protocol.end(packet)
            self._rows.errno = 0
        if packet.flags & RST or all(connection.has_ended):
            self._connections.forget(packet)
