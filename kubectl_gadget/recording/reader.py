"""Reads a recording: finds the segments by their headers, and returns their steps, starting at any time.

Damaged segments are skipped and counted, and reading continues at the next intact one. The trap: anybody may have made
the file, so nothing in it is trusted before it was checked, and only one segment is in memory at a time.
"""

import os
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from kubectl_gadget.errors import FrameError, UsageError
from kubectl_gadget.recording import compression, layout
from kubectl_gadget.recording.layout import DamagedError, RecordKind, SegmentHeader
from kubectl_gadget.recording.writer import RecordedFrame
from kubectl_gadget.wire import FrameType
from kubectl_gadget.wire.message import parse

_PIECE = 1 << 20
_MOST_NODES = 60_000
_MOST_TRIES = 10_000
"""A limit for files that consist of segment marks; without it, reading them could take hours."""


class RecordedStep(NamedTuple):
    """What the run took at one time."""

    now_ns: int
    """the run's clock; only differences are meaningful"""
    wall_ns: int
    frames: list[RecordedFrame]
    answers: dict[str, Any]


@dataclass(frozen=True)
class Place:
    """The location of a segment's blocks."""

    header: SegmentHeader
    offset: int


@dataclass
class Damage:
    """What could not be read."""

    segments: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    is_cut: bool = False
    """the last segment is incomplete, as when the client was killed"""

    def add(self, error: DamagedError) -> None:
        self.segments += 1
        self.reasons[str(error)] += 1


class RecordingReader:
    """Reads one file. Call `close`, or use it as a context manager."""

    def __init__(self, path: Path) -> None:
        """Finds the segments. Raises UsageError when the file cannot be opened or is not a recording."""
        self.path = path
        self.damage = Damage()
        self.dropped = 0
        """bytes of events that did not fit into the writer's buffer; complete once everything was read"""
        self.end: dict[str, Any] | None = None
        """how the run ended; set once everything was read, and None when the client was killed"""
        try:
            self._file: BinaryIO = open(path, "rb")
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from None
        try:
            layout.check_file_header(self._file.read(layout.FILE_BYTES))
            self.meta = self._find_meta()
        except DamagedError as error:
            self.close()
            raise UsageError(f"{path}: {error}", error.remedy) from None
        except OSError as error:
            self.close()
            raise UsageError(f"{path}: {error.strerror}") from None

    def __enter__(self) -> "RecordingReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def steps(self, since_ns: int | None = None, until_ns: int | None = None) -> Iterator[RecordedStep]:
        """All steps in order. Those before `since_ns` (wall time) have no events; those after `until_ns` are left
        out."""
        self.damage, self.dropped = Damage(), 0
        for place in self._find(self.damage):
            if until_ns is not None and place.header.first_ns > until_ns:
                return
            with_events = since_ns is None or place.header.last_ns >= since_ns
            try:
                found = list(self._steps(place, with_events))
            except DamagedError as error:
                self.damage.add(error)
                continue
            for step in found:
                if until_ns is not None and step.wall_ns > until_ns:
                    return
                if since_ns is not None and step.wall_ns < since_ns:
                    frames = [frame for frame in step.frames if frame.type != FrameType.EVENTS]
                    yield step._replace(frames=frames)
                else:
                    yield step

    def _steps(self, place: Place, with_events: bool) -> Iterator[RecordedStep]:
        """The steps of one segment. Raises DamagedError."""
        control = self._block(place, events=False)
        events = self._block(place, events=True) if with_events else None
        nodes: dict[int, str] = {}
        step: RecordedStep | None = None
        at, size = 0, place.header.events_bytes
        for record in layout.records(control):
            match record.kind:
                case RecordKind.NODE:
                    if len(nodes) >= _MOST_NODES:
                        raise DamagedError("a segment names too many nodes")
                    nodes[record.node] = record.data.decode("utf-8", "replace")
                case RecordKind.STEP:
                    if step is not None:
                        yield step
                    step = RecordedStep(*layout.step_times(record.data), [], {})
                case RecordKind.FRAME | RecordKind.EVENTS if step is None or record.node not in nodes:
                    raise DamagedError("a frame has no step or no node")
                case RecordKind.FRAME if step is not None:
                    step.frames.append(RecordedFrame(nodes[record.node], record.type, record.data))
                case RecordKind.EVENTS if step is not None:
                    if at + record.length > size:
                        raise DamagedError("events are cut")
                    if events is not None:
                        payload = events[at : at + record.length]
                        step.frames.append(RecordedFrame(nodes[record.node], FrameType.EVENTS, payload))
                    at += record.length
                case RecordKind.ANSWERS if step is not None:
                    step.answers.update(_json(record.data))
                case RecordKind.DROPPED:
                    self.dropped += _count(_json(record.data).get("event_bytes"))
                case RecordKind.END:
                    self.end = _json(record.data)
        if step is not None:
            yield step

    def _block(self, place: Place, *, events: bool) -> bytes:
        header = place.header
        offset, size = place.offset, header.control_stored
        if events:
            offset, size = offset + size, header.events_stored
        self._file.seek(offset)
        data = self._file.read(size)
        crc = header.events_crc if events else header.control_crc
        if len(data) != size or zlib.crc32(data) != crc:
            raise DamagedError(f"segment {header.number} is damaged")
        return compression.decompress(data, header.compression, header.events_bytes if events else header.control_bytes)

    def segments(self) -> Iterator[SegmentHeader]:
        """The headers of all segments that can be found."""
        for place in self._find(Damage()):
            yield place.header

    def _find(self, damage: Damage) -> Iterator[Place]:
        """The segments, found by their headers; damaged ones are counted."""
        size = os.fstat(self._file.fileno()).st_size
        offset = layout.FILE_BYTES
        while offset < size:
            self._file.seek(offset)
            try:
                header = layout.decode_header(self._file.read(layout.SEGMENT_BYTES))
            except DamagedError as error:
                found = self._next_mark(offset + 1, size)
                if found is None:
                    damage.is_cut = True
                    return
                damage.add(error)
                offset = found
                continue
            after = offset + layout.SEGMENT_BYTES
            if after + header.stored > size:
                damage.is_cut = True
                return
            yield Place(header, after)
            offset = after + header.stored

    def _next_mark(self, offset: int, size: int) -> int | None:
        """The offset of the next valid segment header after one that cannot be read; None: there is none."""
        tries = 0
        while offset < size and tries < _MOST_TRIES:
            self._file.seek(offset)
            piece = self._file.read(_PIECE + len(layout.MARK) - 1)
            at = piece.find(layout.MARK)
            while at >= 0 and tries < _MOST_TRIES:
                tries += 1
                self._file.seek(offset + at)
                try:
                    layout.decode_header(self._file.read(layout.SEGMENT_BYTES))
                except DamagedError:
                    at = piece.find(layout.MARK, at + 1)
                    continue
                return offset + at
            offset += _PIECE
        return None

    def _find_meta(self) -> dict[str, Any]:
        """What was run, from the first intact segment that contains it. Raises DamagedError."""
        for place in self._find(Damage()):
            try:
                for record in layout.records(self._block(place, events=False)):
                    if record.kind == RecordKind.META:
                        return _json(record.data)
            except DamagedError:
                continue  # counted when its steps are read
        raise DamagedError("no segment of it says what was run")


def _json(data: bytes) -> dict[str, Any]:
    try:
        return parse(data)
    except FrameError as error:
        raise DamagedError(f"a record cannot be read: {error}") from None


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
