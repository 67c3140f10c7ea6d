"""An HTTP/2 connection: matches requests and responses by stream; reads the gRPC status, which follows the body.

A response is written when it starts, a gRPC response when it ends. The trap: if headers are unknown (http2_frames.py),
it may be unknown whether it is gRPC, or whether a block is a response or its trailers; nothing is guessed.
"""

from collections import OrderedDict
from urllib.parse import unquote

from kubectl_gadget.protocols.http2_frames import Body, Event, Frames, HeaderBlock, MissingBytes
from kubectl_gadget.protocols.http_exchange import Exchange, HttpRows
from kubectl_gadget.protocols.http_message import Head
from kubectl_gadget.protocols.packets import FIN, RST, Packet

_MOST_STREAMS = 1024
_OF_REQUEST = (":method", ":path", ":scheme", ":authority")
_RESETS = (
    *("NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED"),
    *("FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM"),
    *("INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"),
)
"""Error codes by number: RFC 9113, section 7."""


class _Stream:
    """An open stream. Bodies are counted as long as nothing was missed."""

    def __init__(self, exchange: Exchange, packet: Packet) -> None:
        self.exchange = exchange
        self.packet = packet
        """the first packet of the stream"""
        self.request_bytes = 0
        self.response_bytes = 0
        self.request_ended = False
        self.response_ended = False
        self.is_counted = exchange.asked is not None
        self.is_written = False


class Http2:
    """Takes the pieces of both directions."""

    def __init__(self, rows: HttpRows) -> None:
        self._rows = rows
        self._frames = (Frames(), Frames())
        self._streams: OrderedDict[int, _Stream] = OrderedDict()
        self._is_client: bool | None = None
        """whether this end is the client; None: not known yet"""

    def continue_after_upgrade(self, exchange: Exchange) -> None:
        """Continues after an upgrade: stream 1 is this request, which was made in HTTP/1."""
        assert exchange.asked is not None
        self._is_client = exchange.is_client
        exchange.owner, exchange.answer = self, None
        stream = self._begin(1, exchange, exchange.asked)
        stream.request_bytes, stream.request_ended = exchange.request_bytes or 0, exchange.request_bytes is not None
        self._rows.waiting.add(exchange, exchange.asked.time)

    def feed(self, packet: Packet, piece: bytes | int) -> None:
        """Takes a piece of the stream in the direction of `packet`, the packet that completed it."""
        for event in self._frames[packet.outgoing].feed(piece):
            self._take(packet, event)

    def end(self, packet: Packet) -> None:
        """Takes a packet with FIN or RST. The server may still answer a client that has closed its direction."""
        if packet.flags & RST or (packet.flags & FIN and packet.outgoing != self._is_client):
            for number in list(self._streams):
                self._finish(number, packet)

    def give_up(self, exchange: Exchange, time: int) -> None:
        """Writes an exchange as far as it is known. If it continues, it is written again."""
        stream = self._streams[exchange.stream]
        self._write(stream, stream.packet, time)

    def _take(self, packet: Packet, event: Event) -> None:
        if isinstance(event, MissingBytes):
            for stream in self._streams.values():
                stream.is_counted = False
                stream.exchange.may_be_answered = True
        elif isinstance(event, HeaderBlock):
            self._block(packet, event)
        elif (found := self._streams.get(event.stream)) is not None:
            if isinstance(event, Body):
                self._body(packet, event, found)
            else:
                found.exchange.reset = _RESETS[event.code] if event.code < len(_RESETS) else str(event.code)
                self._finish(event.stream, packet)

    def _body(self, packet: Packet, body: Body, stream: _Stream) -> None:
        if packet.outgoing == self._is_client:
            stream.request_bytes += body.length
            stream.request_ended |= body.is_last
            return
        stream.response_bytes += body.length
        if body.is_last:
            stream.response_ended = True
            self._finish(body.stream, packet)

    def _block(self, packet: Packet, block: HeaderBlock) -> None:
        """Takes a request, a response, or trailers: recognized by pseudo-headers, or else by the sender."""
        stream = self._streams.get(block.stream)
        if block.is_promise:
            self._is_client = not packet.outgoing
            self._ask(packet, block)
        elif any(name in block.headers for name in _OF_REQUEST):
            self._is_client = packet.outgoing
            self._ask(packet, block)
        elif ":status" in block.headers:
            self._is_client = not packet.outgoing
            self._answer(packet, block, stream)
        elif packet.outgoing == self._is_client:
            if stream is not None:
                stream.request_ended |= block.is_last
            elif not block.is_whole:
                self._ask(packet, block)
        elif self._is_client is not None:
            is_answer = stream is not None and stream.exchange.answer is None and not block.is_whole
            if is_answer and "grpc-status" not in block.headers:
                self._answer(packet, block, stream)
            else:
                self._trailers(packet, block, stream)

    def _ask(self, packet: Packet, block: HeaderBlock) -> None:
        if block.stream in self._streams:
            return
        headers = block.headers
        head = Head(headers.get(":method", ""), headers.get(":path", ""), headers=headers, is_whole=block.is_whole)
        if authority := headers.get(":authority"):
            headers["host"] = authority
        exchange = Exchange(self, bool(self._is_client), None if block.is_promise else packet, head)
        self._begin(block.stream, exchange, packet).request_ended = block.is_last
        if exchange.asked is not None:
            self._rows.waiting.add(exchange, packet.time)

    def _answer(self, packet: Packet, block: HeaderBlock, stream: _Stream | None) -> None:
        status = block.headers.get(":status", "")
        code = int(status) if status.isascii() and status.isdigit() and len(status) == 3 else 0
        if code // 100 == 1:
            return
        stream = stream or self._begin_unasked(packet, block.stream)
        exchange = stream.exchange
        if exchange.answer is not None:
            return
        exchange.answer = Head(status=code, headers=block.headers, is_whole=block.is_whole)
        self._rows.waiting.done(exchange)
        if block.is_last:
            self._trailers(packet, block, stream)
        elif is_grpc(exchange) is False:
            stream.is_written = True
            self._write(stream, packet, packet.time)
        else:
            self._rows.answering.add(exchange, packet.time)

    def _trailers(self, packet: Packet, block: HeaderBlock, stream: _Stream | None) -> None:
        status = block.headers.get("grpc-status", "")
        if stream is None:
            if not status:
                return
            stream = self._begin_unasked(packet, block.stream)
            stream.exchange.may_be_answered = True
        if status.isascii() and status.isdigit() and len(status) < 10:
            stream.exchange.grpc_status = int(status)
        if (message := block.headers.get("grpc-message")) is not None:
            stream.exchange.grpc_message = unquote(message, errors="surrogateescape")
        if block.is_last:
            stream.response_ended = True
            self._finish(block.stream, packet)

    def _begin_unasked(self, packet: Packet, number: int) -> _Stream:
        """Begins a stream for a response whose request was not seen."""
        exchange = Exchange(self, bool(self._is_client), None, Head(is_whole=False))
        return self._begin(number, exchange, packet)

    def _begin(self, number: int, exchange: Exchange, packet: Packet) -> _Stream:
        exchange.stream = number
        stream = self._streams[number] = _Stream(exchange, packet)
        if len(self._streams) > _MOST_STREAMS:
            self._finish(next(iter(self._streams)), packet)
        return stream

    def _finish(self, number: int, packet: Packet) -> None:
        """Ends a stream; nothing more will come of it."""
        stream = self._streams.pop(number)
        if not stream.is_written:
            self._write(stream, packet, packet.time)

    def _write(self, stream: _Stream, packet: Packet, time: int) -> None:
        exchange, answer = stream.exchange, stream.exchange.answer
        exchange.protocol = "gRPC" if is_grpc(exchange) else "HTTP/2"
        exchange.request_bytes = (
            stream.request_bytes if stream.is_counted and stream.request_ended else exchange.request.length
        )
        exchange.response_bytes = answer.length if answer else None
        if stream.is_counted and stream.response_ended:
            exchange.response_bytes = stream.response_bytes
        self._rows.write(exchange, packet, time)


def is_grpc(exchange: Exchange) -> bool | None:
    """Whether the exchange is gRPC; None: unknown."""
    heads = [exchange.request] + ([exchange.answer] if exchange.answer else [])
    types = [head.text("content-type") for head in heads]
    if exchange.grpc_status is not None or any(_names_grpc(text) for text in types if text):
        return True
    return False if any(head.is_whole for head in heads) or any(types) else None


def _names_grpc(content_type: str) -> bool:
    return content_type.startswith("application/grpc") and not content_type.startswith("application/grpc-web")
