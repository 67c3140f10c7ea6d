"""An HTTP/2 connection: hyperframe parses frames, hpack parses header blocks, and bodies are only counted. Requests and
responses are matched by stream; the gRPC status follows the body.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import unquote

from hpack.exceptions import HPACKError
from hpack.hpack import Decoder
from hpack.table import HeaderTable
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, HeadersFrame, PushPromiseFrame, RstStreamFrame

from kubectl_gadget.protocols.http_exchange import Exchange, Head, HttpRows
from kubectl_gadget.protocols.tcp import FIN, RST, Packet

# One direction of an HTTP/2 connection: hyperframe parses frames, hpack parses header blocks, bodies are only
# counted.


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""The client's connection preface: RFC 9113, section 3.4."""
_HEAD_BYTES = 9
_USUAL_BYTES = 16 << 10
"""Maximum length of a frame unless the other end allows more."""
_MOST_BLOCK = 64 << 10
_MOST_TABLE = 64 << 10
"""Maximum size of the dynamic table. Entries evicted from it become unknown, so they are never wrong."""
_UNKNOWN = b"\0"
"""Stands for an unknown header; no real header can have this name."""

_LENGTHS = {2: 5, 3: 4, 6: 8, 8: 4}
"""The payload length by type, for frames of fixed length: PRIORITY, RST_STREAM, PING, WINDOW_UPDATE."""
_FLAGS = (0x09, 0x2D, 0, 0, 0x01, 0x0C, 0x01, 0, 0, 0x04)
"""The defined flags by frame type."""
_OF_CONNECTION = (4, 6, 7)
_OF_EITHER = 8
_CONTINUATION = 9


@dataclass
class HeaderBlock:
    """Headers of a stream: the head of a request or a response, or trailers."""

    stream: int
    headers: dict[str, str]
    """by lower-case name; of repeated headers only the last"""
    is_whole: bool
    """all headers are known"""
    is_last: bool
    """nothing more follows on the stream in this direction"""
    is_promise: bool = False
    """a request that the server makes on behalf of the client"""


@dataclass
class Body:
    """A piece of a body."""

    stream: int
    length: int
    is_last: bool


@dataclass
class Reset:
    """A stream that was ended early."""

    stream: int
    code: int


@dataclass
class MissingBytes:
    """Marks a place where frames may have been missed."""


Event: TypeAlias = HeaderBlock | Body | Reset | MissingBytes


class Frames:
    """Takes the pieces of a stream (tcp.Stream) and yields what they contain. Starts at the preface, or with the first
    piece that looks like frames."""

    def __init__(self) -> None:
        self._bytes = b""
        self._skip = 0
        self._block: tuple[HeadersFrame | PushPromiseFrame, bytes] | None = None
        """the received part of an unfinished header block"""
        self._in_step = False
        self._decoder = _decoder()

    def feed(self, piece: bytes | int) -> Iterator[Event]:
        if isinstance(piece, int):
            if self._in_step and not self._bytes and self._skip >= piece:
                self._skip -= piece
            else:
                yield self._lose()
            return
        if not self._in_step:
            if piece.startswith(PREFACE):
                piece = piece[len(PREFACE) :]
            elif not looks_like_frames(piece):
                yield MissingBytes()
                return
            self._in_step = True
        self._bytes += piece
        try:
            while self._pass_over() and (frame := self._next()) is not None:
                yield from self._events(*frame)
        except (HPACKError, HyperframeError):
            yield self._lose()

    def _lose(self) -> MissingBytes:
        """Discards the state: what came so far is no longer known."""
        self._bytes, self._skip, self._block, self._in_step = b"", 0, None, False
        self._decoder = _decoder()
        return MissingBytes()

    def _pass_over(self) -> bool:
        """Skips bytes. Returns whether the start of a frame has been reached."""
        passed = min(self._skip, len(self._bytes))
        self._skip -= passed
        self._bytes = self._bytes[passed:]
        return not self._skip

    def _next(self) -> tuple[Frame, int, memoryview] | None:
        """The next frame, its length and its payload; None: it is incomplete. Bodies are only skipped."""
        data = memoryview(self._bytes)
        if len(data) < _HEAD_BYTES:
            return None
        frame, length = Frame.parse_frame_header(data[:_HEAD_BYTES])
        wanted = length
        if isinstance(frame, DataFrame):
            wanted = min(length, "PADDED" in frame.flags)
        elif not isinstance(frame, (HeadersFrame, PushPromiseFrame, ContinuationFrame, RstStreamFrame)):
            wanted = 0
        elif length > _MOST_BLOCK:
            raise HyperframeError(f"a frame of {length} bytes")
        end = _HEAD_BYTES + wanted
        if len(data) < end:
            return None
        self._bytes, self._skip = self._bytes[end:], length - wanted
        return frame, length, data[_HEAD_BYTES:end]

    def _events(self, frame: Frame, length: int, carried: memoryview) -> Iterator[Event]:
        if isinstance(frame, DataFrame):
            padding = 1 + carried[0] if len(carried) else 0
            yield Body(frame.stream_id, max(0, length - padding), "END_STREAM" in frame.flags)
        elif isinstance(frame, RstStreamFrame):
            frame.parse_body(carried)
            yield Reset(frame.stream_id, frame.error_code)
        elif isinstance(frame, (HeadersFrame, PushPromiseFrame, ContinuationFrame)):
            frame.parse_body(carried)
            if isinstance(frame, ContinuationFrame):
                if self._block is None or self._block[0].stream_id != frame.stream_id:
                    raise HyperframeError("a CONTINUATION frame without a header block")
                first, data = self._block[0], self._block[1] + frame.data
            else:
                first, data = frame, frame.data
            if len(data) > _MOST_BLOCK:
                raise HyperframeError("a header block that never ends")
            self._block = None if "END_HEADERS" in frame.flags else (first, data)
            if self._block is None:
                yield self._read_block(first, data)

    def _read_block(self, frame: HeadersFrame | PushPromiseFrame, data: bytes) -> HeaderBlock:
        headers = dict(self._decoder.decode(data, raw=True))
        is_whole = headers.pop(_UNKNOWN, None) is None
        texts = {_text(name).lower(): _text(value) for name, value in headers.items()}
        if isinstance(frame, PushPromiseFrame):
            return HeaderBlock(frame.promised_stream_id, texts, is_whole, is_last=False, is_promise=True)
        return HeaderBlock(frame.stream_id, texts, is_whole, "END_STREAM" in frame.flags)


class _Table(HeaderTable):
    """A dynamic table in which entries older than the known ones are unknown instead of an error."""

    def get_by_index(self, index: int) -> tuple[bytes, bytes]:
        if index > self.STATIC_TABLE_LENGTH + len(self.dynamic_entries):
            return _UNKNOWN, b""
        return super().get_by_index(index)

    @property
    def maxsize(self) -> int:
        return self._maxsize

    @maxsize.setter
    def maxsize(self, value: int) -> None:
        self._maxsize = min(value, _MOST_TABLE)
        self._shrink()


def _decoder() -> Decoder:
    decoder = Decoder(max_header_list_size=_MOST_BLOCK)
    decoder.header_table = _Table()
    # The limit set by the other end is not tracked, so hpack must accept any size.
    decoder.max_allowed_table_size = 1 << 32
    return decoder


def looks_like_frames(piece: bytes) -> bool:
    """True if the piece starts with a frame and consists of frames only; the last one may be cut."""
    place = 0
    while len(piece) - place >= _HEAD_BYTES:
        length, kind, flags = int.from_bytes(piece[place : place + 3]), piece[place + 3], piece[place + 4]
        stream = int.from_bytes(piece[place + 5 : place + 9])
        if (
            kind >= len(_FLAGS)
            or (kind == _CONTINUATION and not place)
            or length > _USUAL_BYTES
            or _LENGTHS.get(kind, length) != length
            or flags & ~_FLAGS[kind]
            or stream >> 31
            or (kind != _OF_EITHER and (stream == 0) != (kind in _OF_CONNECTION))
        ):
            return False
        place += _HEAD_BYTES + length
    return place > 0


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


# An HTTP/2 connection: matches requests and responses by stream; reads the gRPC status, which follows the body.


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
        """True if this end is the client; None: not known yet"""

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
        """Writes the known part of an exchange. If it continues, it is written again."""
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
    """True if the exchange is gRPC; None: unknown."""
    heads = [exchange.request] + ([exchange.answer] if exchange.answer else [])
    types = [head.text("content-type") for head in heads]
    if exchange.grpc_status is not None or any(_names_grpc(text) for text in types if text):
        return True
    return False if any(head.is_whole for head in heads) or any(types) else None


def _names_grpc(content_type: str) -> bool:
    return content_type.startswith("application/grpc") and not content_type.startswith("application/grpc-web")
