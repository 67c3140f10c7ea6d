"""View `http`: makes one row for each request of HTTP/1 and HTTP/2, when its response starts or will not come.

The start of a connection shows which version it is. HTTP/1 is read here, HTTP/2 in http2.py; HTTP/1 may be upgraded to
HTTP/2.
"""

import re
from collections import deque
from collections.abc import Iterator, Mapping
from errno import ECONNABORTED, ECONNRESET
from typing import Any

import h11

from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.protocols.http2 import PREFACE, Http2, looks_like_frames
from kubectl_gadget.protocols.http_exchange import Exchange, Head, HttpRows
from kubectl_gadget.protocols.tcp import FIN, RST, Connections, Packet, Stream, packets
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.views import Stage, asks_for_process

# HTTP/1: h11 parses the heads of messages, bodies are skipped, responses are matched to requests.
#
# Only the beginning of large packets is available, so a body is counted, not read. If the piece that gives the length
# of a body is missing, the start of the next message is unknown; it is then searched at the start of each packet, where
# nearly all messages start, and marked as `after_gap`.

MOST_HEAD = 64 << 10
_START = re.compile(rb"(?:[A-Z-]{3,16} \S|HTTP/1\.[01] \d)")
_REQUEST = re.compile(rb"([A-Z-]{3,16}) (\S{1,8192})")
_RESPONSE = re.compile(rb"HTTP/1\.[01] (\d{3})")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r?\n")
_MOST_CHUNK_LINE = 4096


def read_head(data: bytes) -> Head | None:
    """Parses a head that ends with an empty line; None if it is not one."""
    is_response = data.startswith(b"HTTP/")
    connection = h11.Connection(h11.CLIENT if is_response else h11.SERVER, MOST_HEAD)
    try:
        if is_response:
            connection.send(h11.Request(method="GET", target="/", headers=[("Host", "any")]))
        connection.receive_data(data)
        event = connection.next_event()
    except h11.ProtocolError:
        return _read_loosely(data)
    if isinstance(event, h11.Request):
        head = Head(method=_text(event.method), target=_text(event.target), version=_text(event.http_version))
    elif isinstance(event, (h11.Response, h11.InformationalResponse)):
        head = Head(status=event.status_code, version=_text(event.http_version))
    else:
        return _read_loosely(data)
    head.headers = {_text(name): _text(value) for name, value in event.headers}
    return head


def _read_loosely(data: bytes) -> Head | None:
    """Parses what is readable of a head that breaks the rules, or that h11 rejects: it supports no coding but
    chunked."""
    pairs = (line.partition(b":") for line in data.split(b"\n")[1:])
    headers = {_text(name.strip()).lower(): _text(value.strip()) for name, colon, value in pairs if colon}
    if found := _RESPONSE.match(data):
        return Head(status=int(found[1]), headers=headers)
    found = _REQUEST.match(data)
    return Head(method=_text(found[1]), target=_text(found[2]), headers=headers) if found else None


def _text(data: bytes | bytearray) -> str:
    return bytes(data).decode("utf-8", "surrogateescape")


class Messages:
    """Takes the pieces of a stream (tcp.Stream) and yields the heads in it.

    Call `body` after each head with the length of what follows: a number, -1 for chunks, None if only the start of the
    next message shows it.
    """

    def __init__(self) -> None:
        self._bytes = b""
        self._skip = 0
        self._in_chunks = False
        self._in_trailer = False
        self._lost = True
        self._gap = False

    def feed(self, piece: bytes | int) -> Iterator[Head]:
        if isinstance(piece, int):
            self._miss(piece)
            return
        if self._lost:
            if not _START.match(piece):
                return
            self._lost = False
        self._bytes += piece
        while self._bytes and not self._lost:
            if self._skip:
                skipped = min(self._skip, len(self._bytes))
                self._skip -= skipped
                self._bytes = self._bytes[skipped:]
            elif self._in_chunks:
                if not self._read_chunk():
                    return
            else:
                head = self._read_head()
                if head is None:
                    return
                yield head

    def body(self, length: int | None) -> None:
        """Sets the length of the body after the last head."""
        if length is None:
            self._lose(gap=False)
        elif length < 0:
            self._in_chunks = True
        else:
            self._skip = length

    def rest(self) -> bytes:
        """Removes and returns the bytes after the last head."""
        rest, self._bytes = self._bytes, b""
        return rest

    def _miss(self, count: int) -> None:
        if not self._lost and not self._bytes and self._skip >= count:
            self._skip -= count
        else:
            self._lose(gap=True)

    def _lose(self, gap: bool) -> None:
        self._bytes, self._skip, self._in_chunks, self._in_trailer = b"", 0, False, False
        self._lost = True
        self._gap = self._gap or gap

    def _read_head(self) -> Head | None:
        start = self._bytes.lstrip(b"\r\n")
        end = re.search(rb"\r?\n\r?\n", start)
        if end is None:
            if len(start) > MOST_HEAD or (len(start) > 16 and not _START.match(start)):
                self._lose(gap=True)
            return None
        head = read_head(start[: end.end()])
        if head is None:
            self._lose(gap=True)
            return None
        self._bytes = start[end.end() :]
        head.after_gap, self._gap = self._gap, False
        return head

    def _read_chunk(self) -> bool:
        """Skips the head of a chunk, or a line after the last chunk. False: it is incomplete, or invalid."""
        if self._in_trailer:
            line, newline, rest = self._bytes.partition(b"\n")
            if not newline:
                if len(line) > MOST_HEAD:
                    self._lose(gap=True)
                return False
            self._bytes = rest
            if not line.strip():
                self._in_trailer = self._in_chunks = False
            return True
        found = _CHUNK.match(self._bytes)
        if found is None:
            if b"\n" in self._bytes or len(self._bytes) > _MOST_CHUNK_LINE:
                self._lose(gap=True)
            return False
        size = int(found[1], 16)
        self._bytes = self._bytes[found.end() :]
        if size:
            self._skip = size + 2
        else:
            self._in_trailer = True
        return True


# The connection: responses are matched to requests.


_NO_BODY = (204, 304)


class Http1:
    """Takes the pieces of both directions. `successor` is set once the connection has been upgraded to HTTP/2."""

    def __init__(self, rows: HttpRows) -> None:
        self.successor: Http2 | None = None
        self.idle: int | None = None
        """how long the connection was silent before the present piece; None: it is the first one"""
        self._rows = rows
        self._messages = (Messages(), Messages())
        self._requests: deque[Exchange] = deque()
        self._is_tunnel = False

    def feed(self, packet: Packet, piece: bytes | int) -> None:
        """Takes a piece of the stream in the direction of `packet`, the packet that completed it."""
        if self._is_tunnel:
            return
        messages = self._messages[packet.outgoing]
        for head in messages.feed(piece):
            self._message(packet, head, messages)
            if self.successor is not None:
                self.successor.feed(packet, messages.rest())
                return

    def end(self, packet: Packet) -> None:
        waits_for_other_end = self._requests and self._requests[0].is_client != packet.outgoing
        if packet.flags & RST or (packet.flags & FIN and waits_for_other_end):
            for request in list(self._requests):
                self.give_up(request, packet.time)

    def give_up(self, exchange: Exchange, time: int) -> None:
        """Writes a request that has no response."""
        assert exchange.asked is not None
        self._requests.remove(exchange)
        self._rows.write(exchange, exchange.asked, time)

    def _message(self, packet: Packet, head: Head, messages: Messages) -> None:
        if head.method:
            request = Exchange(self, packet.outgoing, packet, head, protocol=_protocol(head), request_bytes=_body(head))
            if self.idle is not None:
                request.idle = max(0, self.idle)
            self._requests.append(request)
            self._rows.waiting.add(request, packet.time)
            messages.body(-1 if head.is_chunked else head.length or 0)
            return
        if head.status // 100 == 1 and head.status != 101:
            messages.body(0)
            return
        exchange = self._answered(packet, head)
        exchange.answer, exchange.response_bytes = head, _body(head)
        exchange.protocol = _protocol(head) or exchange.protocol
        if head.status == 101 and (head.text("upgrade") or "").lower() == "h2c" and exchange.asked is not None:
            self.successor = Http2(self._rows)
            self.successor.continue_after_upgrade(exchange)
            return
        method = exchange.request.method
        if head.status == 101 or (method == "CONNECT" and head.status // 100 == 2):
            self._is_tunnel = True
        elif head.status in _NO_BODY or method == "HEAD":
            messages.body(0)
        else:
            messages.body(-1 if head.is_chunked else head.length)
        self._rows.write(exchange, packet, packet.time)

    def _answered(self, packet: Packet, head: Head) -> Exchange:
        """The exchange that this response belongs to; a new one without a request if there is none."""
        while head.after_gap and len(self._requests) > 1:
            self.give_up(self._requests[0], packet.time)
        return self._requests.popleft() if self._requests else Exchange(self, not packet.outgoing, None, Head())


def _protocol(head: Head) -> str:
    return head.version and f"HTTP/{head.version}"


def _body(head: Head) -> int | None:
    if head.length is not None:
        return head.length
    return 0 if head.method and not head.is_chunked else None


# The view, for connections of both versions


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
