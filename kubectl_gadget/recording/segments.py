"""Segments of a recording under construction: their records in order, and the state that readers start with.

STATE is what the frames refer to at one moment: each node's session and containers, pods, cluster objects. A reader
that starts in the middle needs it: in a later file of a rotated recording, after damage, at a given time. It is as
large as the cluster, so it is written only where its size is small beside the segments around it.
"""

import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

from kubectl_gadget.errors import FrameError
from kubectl_gadget.recording import layout
from kubectl_gadget.recording.layout import (
    DETACHED,
    HAS_STATE,
    ROUND_TRIP,
    SELECTED,
    STEP_MARK,
    Compression,
    DamagedError,
    RecordKind,
    SegmentHeader,
)
from kubectl_gadget.wire.agent_messages import ContainerChanges, ContainerNames, from_agent
from kubectl_gadget.wire.frames import Frame, FrameType

_KEPT_NS = 300_000_000_000
"""Seconds for which a removed cgroup stays known, like in rows/containers.py."""
MOST_UNUSED = 1000
"""About how many containers stay known after their cgroups: a ring follows a run of days, and rarely writes a state."""
_MOST_OBJECTS = 1000
"""in one record. Most have fewer than a hundred values, and a record may have a million (wire/message.py)."""
_LATEST = (SELECTED, FrameType.HELLO, FrameType.STARTED, FrameType.STATS, ROUND_TRIP)
"""types for which only the last frame counts, in the order in which they are written"""


class RunState:
    """Follows the records of a run. Raises DamagedError for records that no writer writes."""

    def __init__(self) -> None:
        self._nodes: dict[str, _NodeState] = {}
        self._answers: dict[str, object] = {}
        self._objects: dict[str, dict[str, object]] = {}
        self._mark: bytes | None = None
        """the step of a CI job that has begun last"""
        self._times = b""
        self._now_ns = 0

    def apply(self, control: bytes) -> None:
        """Takes the records of one segment, or of a STATE."""
        names: dict[int, str] = {}
        for record in layout.records(control):
            match record.kind:
                case RecordKind.NODE:
                    names[record.node] = record.data.decode("utf-8", "replace")
                case RecordKind.STEP:
                    self._times, self._now_ns = record.data, layout.step_times(record.data)[0]
                case RecordKind.FRAME if record.type == STEP_MARK:
                    self._mark = record.data
                case RecordKind.FRAME if record.node in names:
                    self._frame(names[record.node], record.type, record.data)
                case RecordKind.ANSWERS:
                    self._answers |= layout.json_of(record.data)
                case RecordKind.OBJECTS:
                    merge_objects(self._objects, layout.json_of(record.data))

    def encode(self) -> bytes:
        """Returns records with which a reader gets this state; empty before the first step."""
        if not self._times:
            return b""
        made = bytearray(layout.record(RecordKind.STEP, self._times))
        if self._answers:
            made += layout.record(RecordKind.ANSWERS, layout.to_json(self._answers))
        objects = {kind: {"put": list(found.values())} for kind, found in self._objects.items()}
        for changes in object_pieces({"all": True, "kinds": objects}):
            made += layout.record(RecordKind.OBJECTS, layout.to_json(changes))
        if self._mark is not None:
            made += layout.record(RecordKind.NODE, b"", node=len(self._nodes))
            made += layout.record(RecordKind.FRAME, self._mark, node=len(self._nodes), type=STEP_MARK)
        for number, (name, node) in enumerate(self._nodes.items()):
            made += layout.record(RecordKind.NODE, name.encode(), node=number)
            for frame in node.frames(self._now_ns):
                made += layout.record(RecordKind.FRAME, frame.payload, node=number, type=frame.type)
        return bytes(made)

    def _frame(self, name: str, type: int, data: bytes) -> None:
        node = self._nodes.setdefault(name, _NodeState())
        try:
            node.apply(type, data, self._now_ns)
        except FrameError as error:
            raise DamagedError(f"a frame cannot be read: {error}") from None


class _NodeState:
    """The state of one node."""

    def __init__(self) -> None:
        self._latest: dict[int, bytes] = {}
        self._stacks: list[bytes] = []
        self._containers: dict[str, ContainerNames] = {}
        self._cgroups: dict[int, str | None] = {}
        self._removed: dict[int, int] = {}
        """when each cgroup was removed, oldest first"""

    def apply(self, type: int, data: bytes, now_ns: int) -> None:
        """Takes one frame. Raises FrameError."""
        if type == DETACHED:
            self._latest = {SELECTED: self._latest[SELECTED]} if SELECTED in self._latest else {}
        elif type == FrameType.CONTAINERS:
            changes = from_agent(Frame(type, data))
            assert isinstance(changes, ContainerChanges)
            self._change(changes, now_ns)
        elif type == FrameType.STACKS:
            self._stacks.append(data)
        elif type in _LATEST:
            self._latest[type] = data
            if type == FrameType.HELLO:
                self._stacks.clear()

    def frames(self, now_ns: int) -> list[Frame]:
        """Returns frames with which a reader gets this state."""
        self._expire(now_ns)
        self._forget()
        containers = ContainerChanges(
            containers=tuple(self._containers.values()), cgroups=dict(self._cgroups), removed=tuple(self._removed)
        )
        found = [Frame(type, self._latest[type]) for type in _LATEST if type in self._latest]
        stacks = [Frame(FrameType.STACKS, data) for data in self._stacks]
        return [*found, Frame(FrameType.CONTAINERS, containers.to_bytes()), *stacks]

    def _change(self, changes: ContainerChanges, now_ns: int) -> None:
        self._containers |= {item.id: item for item in changes.containers}
        self._cgroups |= changes.cgroups
        for cgroup in changes.cgroups:
            self._removed.pop(cgroup, None)
        self._removed |= {cgroup: now_ns for cgroup in changes.removed if cgroup in self._cgroups}
        self._expire(now_ns)
        if len(self._containers) > MOST_UNUSED + 2 * len(self._cgroups):
            self._forget()

    def _forget(self) -> None:
        """Forgets containers without a cgroup."""
        used = {id for id in self._cgroups.values() if id is not None}
        self._containers = {id: item for id, item in self._containers.items() if id in used}

    def _expire(self, now_ns: int) -> None:
        while self._removed:
            cgroup, since = next(iter(self._removed.items()))
            if now_ns - since <= _KEPT_NS:
                return
            del self._removed[cgroup], self._cgroups[cgroup]


def object_pieces(changes: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield OBJECTS that together mean the same, each with so few objects that every reader accepts it."""
    kinds = {kind: change for kind, change in changes["kinds"].items() if len(change.get("put", ())) > _MOST_OBJECTS}
    yield {**changes, "kinds": {**changes["kinds"], **{kind: {**kinds[kind], "put": []} for kind in kinds}}}
    for kind, change in kinds.items():
        for start in range(0, len(change["put"]), _MOST_OBJECTS):
            yield {"kinds": {kind: {"put": change["put"][start : start + _MOST_OBJECTS]}}}


def merge_objects(known: dict[str, dict[str, Any]], changes: Mapping[str, Any]) -> None:
    """Applies OBJECTS to objects by kind and uid. Raises DamagedError."""
    try:
        if changes.get("all"):
            known.clear()
        for kind, change in changes["kinds"].items():
            found = known.setdefault(kind, {})
            found.update({item["metadata"]["uid"]: item for item in change.get("put", ())})
            for uid in change.get("gone", ()):
                found.pop(uid, None)
    except (AttributeError, LookupError, TypeError) as error:
        raise DamagedError(f"objects cannot be read: {error!r}") from None


# The segment, and what the next one repeats of it.


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
    """The items that a run took at one time."""

    now_ns: int
    wall_ns: int
    frames: list[RecordedFrame]
    answers: Mapping[str, object] = {}
    objects: Iterable[Mapping[str, object]] = ()
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
        """True if it contains steps that have waited as long as this."""
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

    def end(self, end: Mapping[str, object], coverage: Mapping[str, object] | None = None) -> None:
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
    blocks = layout.compress(control), layout.compress(events)
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
    return layout.decompress(stored, header.compression, header.control_bytes)
