"""One direction of an HTTP/2 connection: hyperframe parses frames, hpack parses header blocks, bodies are only counted.

The trap: HPACK's dynamic table is built from all header blocks since the connection was opened. If some were missed
(the trace started later, or packets were lost), references to their entries are unknown, but references to later
entries are not, because entries are counted from the newest one. So nothing is guessed, and the table of a connection
that was joined in the middle recovers by itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from hpack.exceptions import HPACKError
from hpack.hpack import Decoder
from hpack.table import HeaderTable
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, HeadersFrame, PushPromiseFrame, RstStreamFrame

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
    """Whether the piece starts with a frame and consists of frames only, as far as it goes."""
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
