"""Length-prefixed, typed, versioned frames (docs/protocol.md).

The decoder gets a byte stream in pieces of any size and returns whole frames. It does no I/O, so it can be tested
without a socket. The trap: a frame of a newer version must be skipped, not refused, or client and agent could never
have different versions.
"""

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

from kubectl_gadget.errors import FrameError

MAGIC = b"kg"
VERSION = 1
MAX_PAYLOAD = 64 << 20
"""Largest payload in bytes; a header with a larger length is an error."""

PART, LAST, REST = 1, 2, 4
"""Flags of an EVENTS frame. PART: it is part of an interval's totals or of a snapshot; LAST: the last part; REST: the
session's end cut the interval short."""

_HEADER = struct.Struct("<2sBBI")
_TYPE = 3
"""Offset in the header, in bytes."""
_EVENTS = struct.Struct("<HHIQQ")
_MOST_NS = 1 << 62
"""No node runs for a century."""
_GADGET_AND_FLAGS = struct.Struct("<HH")
"""how it begins"""


class FrameType(IntEnum):
    """The type of a frame. 1 to 31 go from agent to client, 32 and up from client to agent."""

    HELLO = 1
    STARTED = 2
    CONTAINERS = 3
    EVENTS = 4
    STATS = 5
    WARNING = 6
    END = 7
    PONG = 8
    STACKS = 9
    HOOKS = 10
    BOOT = 11
    OBJECT = 32
    RUN = 33
    FILTER = 34
    HEARTBEAT = 35
    STOP = 36
    SHOW = 37
    LOOK_UP = 38
    UPDATE = 39
    PAYLOAD = 40


class Frame(NamedTuple):
    """One frame. `type` is an int, since an agent of another version may send types that we do not know."""

    type: int
    payload: bytes


class EventsHeader(NamedTuple):
    """Head of an EVENTS payload: which gadget, the frame's number, and until which boot time (ns) it is complete."""

    gadget: int
    sequence: int
    complete_until: int
    flags: int = 0
    """PART, LAST, REST, or 0 for a stream"""
    interval: int = 0
    """number of the interval whose totals these are; 0 for a snapshot"""

    def encode(self) -> bytes:
        """Returns 24 bytes, which ring buffer bytes follow, as the kernel wrote them."""
        return _EVENTS.pack(self.gadget, self.flags, self.interval, self.sequence, self.complete_until)


def split_events(payload: bytes) -> tuple[EventsHeader, memoryview]:
    """Returns head and ring buffer bytes of an EVENTS payload. Raises FrameError when it is too short."""
    if len(payload) < _EVENTS.size:
        raise FrameError(f"an EVENTS frame of {len(payload)} bytes is shorter than its head")
    gadget, flags, interval, sequence, complete_until = _EVENTS.unpack_from(payload)
    if complete_until >= _MOST_NS:
        raise FrameError(f"an EVENTS frame that is complete until {complete_until} ns after the node's start")
    return EventsHeader(gadget, sequence, complete_until, flags, interval), memoryview(payload)[_EVENTS.size :]


def gadget_of_stream(payload: bytes) -> int | None:
    """The gadget of an EVENTS payload of a stream; None: a part of totals or of a snapshot, or too short."""
    if len(payload) < _EVENTS.size:
        return None
    gadget, flags = _GADGET_AND_FLAGS.unpack_from(payload)
    return None if flags else int(gadget)


def joined_streams(payloads: Sequence[bytes]) -> bytes:
    """The payload of an EVENTS frame instead of several ones of one stream: the head of the last one, and all bytes of
    the ring buffer."""
    return b"".join([payloads[-1][: _EVENTS.size], *(memoryview(payload)[_EVENTS.size :] for payload in payloads)])


def header(type: int, length: int) -> bytes:
    """Returns the 8 bytes before a payload of `length` bytes. Raises ValueError when that is over MAX_PAYLOAD."""
    if length > MAX_PAYLOAD:
        raise ValueError(f"a payload of {length} bytes is over the limit of {MAX_PAYLOAD}")
    return _HEADER.pack(MAGIC, VERSION, type, length)


def encode(type: int, payload: bytes = b"") -> bytes:
    """Returns one whole frame. Raises ValueError when the payload is over MAX_PAYLOAD."""
    return header(type, len(payload)) + payload


class FrameDecoder:
    """Turns a byte stream, cut anywhere, into frames.

    `skipped` counts frames of newer versions, which are skipped. After a FrameError the stream cannot be resumed.
    """

    def __init__(self) -> None:
        self.skipped = 0
        self._buffer = bytearray()
        self._broken: FrameError | None = None

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yields all frames that `data` completes. Raises FrameError, in this and each later call, when the stream
        violates the protocol."""
        if self._is_whole(data):
            yield Frame(data[_TYPE], data[_HEADER.size :])
            return
        self._buffer += data
        while (frame := self._next()) is not None:
            if frame[0] == VERSION:
                yield Frame(frame[1], frame[2])
            else:
                self.skipped += 1

    def only(self, data: bytes, type: int) -> bytes | None:
        """Returns the payload, if `data` is one whole frame of this type; otherwise None, and `data` must be fed."""
        return data[_HEADER.size :] if self._is_whole(data) and data[_TYPE] == type else None

    def _is_whole(self, data: bytes) -> bool:
        """True if `data` is one whole frame, as is usual: then no buffer is needed."""
        if self._buffer or self._broken is not None or len(data) < _HEADER.size:
            return False
        magic, version, _, length = _HEADER.unpack_from(data)
        return bool(magic == MAGIC and version == VERSION and length == len(data) - _HEADER.size <= MAX_PAYLOAD)

    def close(self) -> None:
        """Call it at the end of the stream. Raises FrameError when it ends inside a frame."""
        if self._broken is None and self._buffer:
            raise FrameError(f"the stream ended inside a frame, {len(self._buffer)} bytes after its start")

    def _next(self) -> tuple[int, int, bytes] | None:
        if self._broken is not None:
            raise self._broken
        buffer = self._buffer
        if not MAGIC.startswith(bytes(buffer[:2])):
            self._fail(f"expected a frame, got {bytes(buffer[:64])!r}")
        if len(buffer) < _HEADER.size:
            return None
        _, version, type_, length = _HEADER.unpack_from(buffer)
        if version < VERSION or length > MAX_PAYLOAD:
            self._fail(f"a frame of version {version} with {length} bytes is not of this protocol")
        end = _HEADER.size + length
        if len(buffer) < end:
            return None
        payload = bytes(memoryview(buffer)[_HEADER.size : end])
        del buffer[:end]
        return version, type_, payload

    def _fail(self, message: str) -> None:
        self._broken = FrameError(message)
        raise self._broken
