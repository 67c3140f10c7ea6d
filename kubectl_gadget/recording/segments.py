"""A segment of a recording under construction: its records in order, and what the next one repeats of them.

The trap: each segment has its own numbers for nodes, so that it can be read without the segments before it.
"""

import time
import zlib
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, NamedTuple

from kubectl_gadget.recording import compression, layout
from kubectl_gadget.recording.layout import HAS_STATE, ROUND_TRIP, Compression, RecordKind, SegmentHeader
from kubectl_gadget.recording.segment_state import object_pieces
from kubectl_gadget.wire.frames import FrameType

_MOST_REPEATED = 4 << 20
"""A segment with more than this besides its events is not repeated in the next one."""
_PASSING = (FrameType.STATS, ROUND_TRIP)
"""types whose next frame repeats the whole content"""


class RecordedFrame(NamedTuple):
    """One frame of one node."""

    node: str
    type: int
    payload: bytes


class TakenStep(NamedTuple):
    """What a run took at one time."""

    now_ns: int
    wall_ns: int
    frames: list[RecordedFrame]
    answers: Mapping[str, Any] = {}
    objects: Iterable[Mapping[str, Any]] = ()
    dropped: Mapping[str, int] = {}


class PackedSegment(NamedTuple):
    """A whole segment, as it is in the file."""

    data: bytes
    number: int
    first_ns: int
    clock_ns: int
    """the run's clock at its last step; 0 without steps"""
    control: bytes
    """its control block, decompressed"""
    repeated: bytes
    """what the next segment repeats of it in EARLIER"""
    continues: bool
    """the next segment is in another file"""


class Segment:
    """`meta` and `state` make it one that a reader can begin with; `earlier` repeats the one before."""

    def __init__(
        self, number: int, wall_ns: int, meta: bytes | None = None, state: bytes | None = None, earlier: bytes = b""
    ) -> None:
        self.number = number
        self._control = bytearray()
        self._repeated = bytearray()
        self._events: list[bytes] = []
        self._events_bytes = 0
        self._nodes: dict[str, int] = {}
        self._first_ns = self._last_ns = wall_ns
        self._clock_ns = 0
        self._since = time.monotonic()
        self._has_steps = False
        self._flags = 0
        self._continues = False
        if meta is not None:
            self._control += layout.record(RecordKind.META, meta)
        if state:
            self._control += layout.record(RecordKind.STATE, state)
            self._flags = HAS_STATE
        if earlier:
            self._control += layout.record(RecordKind.EARLIER, earlier)

    @property
    def size(self) -> int:
        """Bytes before compression."""
        return len(self._control) + self._events_bytes

    def is_due(self, seconds: float) -> bool:
        """Whether it contains steps that have waited as long as this."""
        return self._has_steps and time.monotonic() - self._since >= seconds

    def add(self, step: TakenStep) -> None:
        times = layout.step_record(step.now_ns, step.wall_ns)
        if not self._has_steps:
            self._first_ns = step.wall_ns
            self._has_steps = True
        self._last_ns, self._clock_ns = step.wall_ns, step.now_ns
        # First, so that a reader has it before it processes the frames, as the run had.
        self._control += times
        before = len(self._repeated)
        self._repeated += times
        if step.answers:
            self._add_lasting(layout.record(RecordKind.ANSWERS, layout.to_json(step.answers)))
        for changes in chain.from_iterable(map(object_pieces, step.objects)):
            self._add_lasting(layout.record(RecordKind.OBJECTS, layout.to_json(changes)))
        if step.dropped:
            self._control += layout.record(RecordKind.DROPPED, layout.to_json(step.dropped))
        for frame in step.frames:
            node = self._node(frame.node)
            if frame.type == FrameType.EVENTS:
                self._control += layout.events_record(node, len(frame.payload))
                self._events.append(frame.payload)
                self._events_bytes += len(frame.payload)
                continue
            record = layout.record(RecordKind.FRAME, frame.payload, node=node, type=frame.type)
            if frame.type in _PASSING:
                self._control += record
            else:
                self._add_lasting(record)
        if len(self._repeated) == before + len(times):
            del self._repeated[before:]

    def end(self, end: Mapping[str, Any], coverage: Mapping[str, Any] | None = None) -> None:
        """Add how the run ended, or that the recording `continues` in another file."""
        self._continues = bool(end.get("continues"))
        if coverage is not None:
            self._control += layout.record(RecordKind.COVERAGE, layout.to_json(coverage))
        self._control += layout.record(RecordKind.END, layout.to_json(end))

    def pack(self) -> PackedSegment:
        """Returns header and both blocks."""
        control = bytes(self._control)
        times = self._first_ns, self._last_ns
        repeated = bytes(self._repeated) if len(self._repeated) <= _MOST_REPEATED else b""
        return PackedSegment(
            stored(self.number, times, control, b"".join(self._events), self._flags),
            self.number,
            self._first_ns,
            self._clock_ns,
            control,
            repeated,
            self._continues,
        )

    def _add_lasting(self, record: bytes) -> None:
        self._control += record
        self._repeated += record

    def _node(self, name: str) -> int:
        number = self._nodes.get(name)
        if number is None:
            number = self._nodes[name] = len(self._nodes)
            self._add_lasting(layout.record(RecordKind.NODE, name.encode(), node=number))
        return number


def stored(number: int, times: tuple[int, int], control: bytes, events: bytes, flags: int) -> bytes:
    """A segment as it is in the file. `times`: wall time in ns of its first and of its last step."""
    blocks = compression.compress(control), compression.compress(events)
    header = SegmentHeader(
        number,
        *times,
        Compression.ZSTD,
        len(blocks[0]),
        len(control),
        len(blocks[1]),
        len(events),
        zlib.crc32(blocks[0]),
        zlib.crc32(blocks[1]),
        flags,
    )
    return b"".join((header.encode(), *blocks))


def control_of(data: bytes) -> bytes:
    """The control block, decompressed, of a segment as it is in the file. Raises DamagedError."""
    header = layout.decode_header(data)
    stored = data[layout.SEGMENT_BYTES : layout.SEGMENT_BYTES + header.control_stored]
    return compression.decompress(stored, header.compression, header.control_bytes)
