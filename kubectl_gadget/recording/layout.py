"""The bytes of a recording (docs/recording.md): a file header, then segments, each with a header and two blocks.

A segment's control block contains its records in order; payloads of EVENTS frames are in its events block. So a reader
that starts late reads the small block of all segments and the large block of few. Every number here comes
from a file that anybody may have made, so lengths are checked before memory is allocated.
"""

import json
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, NamedTuple

from kubectl_gadget.errors import FrameError, GadgetError
from kubectl_gadget.wire.message import parse

MAGIC = b"\x89KGREC\r\n"
"""The first byte is not ASCII, and a transfer that converts line ends changes the last two."""
MAJOR, MINOR = 1, 2
_FILE = struct.Struct("<8sHHI")
FILE_BYTES = _FILE.size

MARK = b"KGSG"
_SEGMENT = struct.Struct("<4sBBHQqqIIIIII")
_HEADER_CRC = struct.Struct("<I")
SEGMENT_BYTES = _SEGMENT.size + _HEADER_CRC.size
MOST_CONTROL, MOST_EVENTS = 80 << 20, 80 << 20
"""The largest block, in bytes after decompression. Writers end a segment at 4 MiB and a step, which has at most 4 MiB
and a frame, and one frame may have 64 MiB."""

MOST_RECORDS = 1 << 18
"""In one block: 5,000 nodes make a tenth of them in a second. Each takes some 300 bytes of memory, and 8 in the block
before compression."""

_MOST_VALUES = 1 << 20
"""In the JSON of one record. They take at most 110 MB. Earlier writers put all objects of a cluster into one record."""
_RECORD = struct.Struct("<BbHI")
_TIME = struct.Struct("<qq")
_NO_NODE = 0xFFFF
HAS_STATE = 1
"""A segment's flag: a reader can start with it."""
DETACHED, GAP, SELECTED, ROUND_TRIP, STEP_MARK = -1, -2, -3, -4, -5
"""Types of frames that the client adds; agents' types are positive."""


class Compression(IntEnum):
    """The compression of both blocks of a segment."""

    NONE = 0
    ZLIB = 1
    ZSTD = 2


class RecordKind(IntEnum):
    """The kind of a record in the control block. Readers skip kinds that they do not know."""

    META = 1
    """what was run: JSON"""
    NODE = 2
    """the name of the node with this number in this segment"""
    STEP = 3
    """the following frames were taken together: the run's clock and wall time, both in ns"""
    FRAME = 4
    """a frame of a node, in the control block"""
    EVENTS = 5
    """an EVENTS frame of a node; its payload is the next one of the events block"""
    ANSWERS = 6
    """what the cluster said about pods during the preceding step: JSON"""
    DROPPED = 7
    """frames that did not fit into the writer's buffer: JSON"""
    END = 8
    """how the run ended: JSON"""
    OBJECTS = 9
    """what changed among the cluster's objects before this step's frames: JSON"""
    STATE = 10
    """for readers that start with this segment: records with everything that its frames refer to"""
    EARLIER = 11
    """for readers that could not read the segment before: its records, without its events"""
    COVERAGE = 12
    """who was traced, from when, to when: JSON (run/coverage.py); before END"""


class DamagedError(GadgetError):
    """These bytes were not written by a writer, or have changed since."""


class Record(NamedTuple):
    """One record. For EVENTS, `data` is empty and `length` counts bytes of the events block."""

    kind: int
    type: int
    """the frame's type"""
    node: int
    length: int
    data: bytes


@dataclass(frozen=True)
class SegmentHeader:
    """The head of a segment, known before its blocks are read."""

    number: int
    first_ns: int
    """wall time of its first step"""
    last_ns: int
    compression: int
    control_stored: int
    """bytes of the block in the file"""
    control_bytes: int
    """bytes of the block after decompression"""
    events_stored: int
    events_bytes: int
    control_crc: int
    """CRC-32 of the block in the file"""
    events_crc: int
    flags: int = 0

    @property
    def stored(self) -> int:
        """Bytes of both blocks in the file."""
        return self.control_stored + self.events_stored

    def encode(self) -> bytes:
        control = self.control_stored, self.control_bytes
        sizes = *control, self.events_stored, self.events_bytes, self.control_crc, self.events_crc
        times = self.first_ns, self.last_ns
        body = _SEGMENT.pack(MARK, self.compression, self.flags, 0, self.number, *times, *sizes)
        return body + _HEADER_CRC.pack(zlib.crc32(body))


def decode_header(data: bytes) -> SegmentHeader:
    """The header at the start of `data`. Raises DamagedError."""
    if len(data) < SEGMENT_BYTES:
        raise DamagedError("the file ends within the header of a segment")
    body = data[: _SEGMENT.size]
    mark, compression, flags, _, number, first, last, *sizes = _SEGMENT.unpack(body)
    if mark != MARK or _HEADER_CRC.unpack_from(data, _SEGMENT.size)[0] != zlib.crc32(body):
        raise DamagedError("the header of a segment is damaged")
    if max(sizes[:2]) > MOST_CONTROL or max(sizes[2:4]) > MOST_EVENTS:
        raise DamagedError("a segment claims to be larger than the format allows")
    return replace(SegmentHeader(number, first, last, compression, *sizes), flags=flags)


def file_header() -> bytes:
    """The first 16 bytes of a file."""
    return _FILE.pack(MAGIC, MAJOR, MINOR, 0)


def check_file_header(data: bytes) -> None:
    """Raises DamagedError when the file is not a recording, or has another major version."""
    if len(data) < FILE_BYTES or data[: len(MAGIC)] != MAGIC:
        raise DamagedError("not a recording", "a file that --record wrote")
    _, major, minor, _ = _FILE.unpack(data[:FILE_BYTES])
    if major != MAJOR:
        what = f"it has version {major}.{minor} of the format, and this program reads {MAJOR}.x"
        raise DamagedError(what, "a newer version of kubectl gadget")


def record(kind: RecordKind, data: bytes = b"", *, node: int | None = None, type: int = 0) -> bytes:
    """A record of the control block, with its data."""
    return _RECORD.pack(kind, type, _NO_NODE if node is None else node, len(data)) + data


def events_record(node: int, length: int) -> bytes:
    """A record for an EVENTS frame with `length` bytes of payload in the events block."""
    return _RECORD.pack(RecordKind.EVENTS, 4, node, length)


def step_record(now_ns: int, wall_ns: int) -> bytes:
    return record(RecordKind.STEP, _TIME.pack(now_ns, wall_ns))


def step_times(data: bytes) -> tuple[int, int]:
    """The run's clock and wall time of a step. Raises DamagedError."""
    if len(data) < _TIME.size:
        raise DamagedError("a step has no times")
    now, wall = _TIME.unpack_from(data)
    return now, wall


def to_json(value: Mapping[str, Any]) -> bytes:
    """The data of a record that is JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


def json_of(data: bytes) -> dict[str, Any]:
    """The JSON of a record. Raises DamagedError."""
    try:
        return parse(data, _MOST_VALUES)
    except FrameError as error:
        raise DamagedError(f"a record cannot be read: {error}") from None


def records(control: bytes) -> Iterator[Record]:
    """The records of a control block. Raises DamagedError when one is truncated."""
    at, size, left = 0, len(control), MOST_RECORDS
    while at < size:
        left -= 1
        if left < 0:
            raise DamagedError("a segment has more records than the format allows")
        if at + _RECORD.size > size:
            raise DamagedError("a record is truncated")
        kind, type_, node, length = _RECORD.unpack_from(control, at)
        at += _RECORD.size
        if kind == RecordKind.EVENTS:
            yield Record(kind, type_, node, length, b"")
            continue
        if at + length > size:
            raise DamagedError("a record is truncated")
        yield Record(kind, type_, node, length, control[at : at + length])
        at += length


# Compression with zstd: Python's own (3.14), or a package with the same module. Level 1 costs less than zlib's
# fastest level, and its result is smaller. A block of a few bytes may expand to gigabytes, so decompression stops
# at the size in its header.


if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


_LEVEL = 1
"""Rows repeat names and paths, so a higher level costs much and gains little."""


def compress(data: bytes) -> bytes:
    """Compresses one block, as Compression.ZSTD."""
    return zstd.compress(data, _LEVEL)


def decompress(data: bytes, how: int, size: int) -> bytes:
    """Decompresses a block to `size` bytes. Raises DamagedError."""
    if how == Compression.NONE:
        found = data
    elif how == Compression.ZLIB:
        found = _bounded(zlib.decompressobj(), data, size, zlib.error)
    elif how == Compression.ZSTD:
        found = _bounded(zstd.ZstdDecompressor(), data, size, zstd.ZstdError)
    else:
        raise DamagedError(f"it is compressed with an unknown method ({how})", "a newer version of kubectl gadget")
    if len(found) != size:
        raise DamagedError(f"a block has {len(found)} bytes and should have {size}")
    return found


def _bounded(stream: Any, data: bytes, size: int, failed: type[Exception]) -> bytes:
    try:
        found: bytes = stream.decompress(data, size + 1)
    except (failed, EOFError, ValueError) as error:
        raise DamagedError(f"a block cannot be decompressed: {error}") from None
    return found
