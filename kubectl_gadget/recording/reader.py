"""Reads a recording: finds the segments by their headers, and returns their steps, starting at any time.

Damaged segments are skipped and counted, and reading continues at the next intact one. Anybody may have made
the file, so nothing in it is trusted before it was checked, only one segment is in memory at a time, and what reading
costs is limited by the size of the file (_Costs): a block of a few bytes may expand to millions of records.
"""

import zlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

from kubectl_gadget.errors import UsageError
from kubectl_gadget.output.escape import escape
from kubectl_gadget.recording import layout
from kubectl_gadget.recording.layout import HAS_STATE, DamagedError, RecordKind, SegmentHeader
from kubectl_gadget.recording.places import PathOrUrl, StoredBytes, open_place, size_of
from kubectl_gadget.recording.segments import RecordedFrame
from kubectl_gadget.wire.frames import FrameType

_LEAST_PIECE, _PIECE = 4 << 10, 1 << 20
_MOST_NODES = 10_000
"""In one recording. Kubernetes supports half as many."""
_LONGEST_NODE_NAME = 1024
"""in bytes"""
_MOST_ANSWERS = 1 << 19
"""Pods in one step. Kubernetes supports 150,000."""
_MOST_REASONS = 100
_MOST_TRIES = 10_000
"""A limit for files that consist of segment marks; without it, reading them could take hours."""


class RecordedIntake(NamedTuple):
    """The items that the run took at one time."""

    now_ns: int
    """the run's clock; only differences are meaningful"""
    wall_ns: int
    frames: list[RecordedFrame]
    answers: dict[str, Any]
    objects: tuple[bytes, ...] = ()
    """changes of the cluster's objects, before the frames, as JSON: few readers need them"""
    is_state: bool = False
    """the steps before it were not read, so its frames may repeat what is known"""


@dataclass(frozen=True)
class SegmentPlace:
    """The location of a segment's blocks."""

    file: StoredBytes
    header: SegmentHeader
    offset: int


@dataclass
class Damage:
    """The damage of a recording."""

    segments: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    missing: int = 0
    """segments that are in no file, between two that are"""
    is_cut: bool = False
    """the last segment is incomplete, as when the client was killed"""

    def add(self, error: DamagedError) -> None:
        self.segments += 1
        if len(self.reasons) < _MOST_REASONS or str(error) in self.reasons:
            self.reasons[str(error)] += 1


@dataclass
class _Costs:
    """The remaining cost of one pass over the files: far more than any file of this size that a writer made. Otherwise
    a file of 10 KB could keep a reader busy for hours."""

    control: int
    """bytes of control blocks, decompressed. Their JSON takes a second for each 20 MiB"""
    events: int
    records: int

    @classmethod
    def of(cls, stored: int) -> "_Costs":
        """`stored`: bytes of all files."""
        return cls((128 << 20) + 100 * stored, (512 << 20) + 1000 * stored, 200_000 + stored)

    def pay(self, *, control: int = 0, events: int = 0, records: int = 0) -> None:
        """Raise DamagedError if this is more than is left."""
        if control > self.control or events > self.events or records > self.records:
            raise DamagedError("the file decompresses to more data than a recording of its size can have")
        self.control -= control
        self.events -= events
        self.records -= records


class LastRecords(NamedTuple):
    """The last segment's data about the run. Both are missing if the client was killed, or still runs."""

    end: dict[str, object]
    """empty: missing"""
    coverage: dict[str, object] | None
    """None: missing, as before version 1.2 of the format"""


class NoSegmentError(UsageError):
    """The file ends with its header, or before: the client was killed when it had just begun the file."""


class RecordingReader:
    """Reads one recording, which may have several files. Call `close`, or use it as a context manager."""

    def __init__(self, path: PathOrUrl, *others: PathOrUrl) -> None:
        """`others` continue the recording in `path`. Raises UsageError when a file cannot be opened or is not a
        recording, NoSegmentError when it is empty."""
        self.path = path
        self.paths = [path]
        self.damage = Damage()
        self.dropped = 0
        """bytes of events that did not fit into the writer's buffer; complete once everything was read"""
        self.end: dict[str, object] | None = None
        """how the run ended; set once everything was read, and None when the client was killed"""
        self.was_read = False
        """True if everything was read"""
        self._files: list[StoredBytes] = []
        self._names: set[str] = set()
        """of nodes"""
        start = layout.MAGIC
        try:
            self._files.append(open_place(path))
            start = self._files[0].read(layout.FILE_BYTES + 1)
            layout.check_file_header(start[: layout.FILE_BYTES])
            self.meta = self._find_meta()
        except DamagedError as error:
            self.close()
            is_empty = len(start) <= layout.FILE_BYTES and layout.MAGIC.startswith(start[: len(layout.MAGIC)])
            raise (NoSegmentError if is_empty else UsageError)(f"{path}: {error}", error.remedy) from None
        except OSError as error:
            self.close()
            raise UsageError(f"{path}: {error.strerror}") from None
        try:
            for each in others:
                self.extend(RecordingReader(each))
        except UsageError:
            self.close()
            raise

    def extend(self, later: "RecordingReader") -> None:
        """Takes the files of another reader, which continue this recording; they are closed with this one."""
        self.paths += later.paths
        self._files += later._files

    def __enter__(self) -> "RecordingReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for file in self._files:
            file.close()

    @property
    def total_bytes(self) -> int:
        """The size of all files."""
        return sum(map(size_of, self._files))

    def steps(self, since_ns: int | None = None, until_ns: int | None = None) -> Iterator[RecordedIntake]:
        """All steps in order. Those before `since_ns` (wall time) have no events, and are left out if a later
        segment repeats what they say; those after `until_ns` are left out."""
        self.damage, self.dropped, self.was_read = Damage(), 0, False
        first = None if since_ns is None else self._last_state(since_ns)
        expected = missed = known = 0
        costs = self._costs()
        for place in self.segment_places(self.damage, first):
            if until_ns is not None and place.header.first_ns > until_ns:
                return
            with_events = since_ns is None or place.header.last_ns >= since_ns
            gap = place.header.number - expected
            missed = gap or missed
            self.end = None  # one that a file before had says nothing about the last file
            try:
                control = self._block(place, costs, events=False)
                events = self._block(place, costs, events=True) if with_events else None
                repeats, repeated = self._repeated(control, missed, costs)
            except DamagedError as error:
                self.damage.add(error)
                continue
            if expected and gap > 0 and first is None:
                self.damage.missing += max(0, gap - (self.damage.segments - known))
            known = self.damage.segments
            expected = place.header.number + 1
            # What several lost segments said stays missing until a STATE.
            missed = 0 if repeats else 2
            try:
                for step in chain(repeated, self._read(control, events, costs, place.header.events_bytes)):
                    if until_ns is not None and step.wall_ns > until_ns:
                        return
                    if since_ns is not None and step.wall_ns < since_ns:
                        frames = [frame for frame in step.frames if frame.type != FrameType.EVENTS]
                        yield step._replace(frames=frames)
                    else:
                        yield step
            except DamagedError as error:
                self.damage.add(error)
                missed = 1
        self.was_read = True

    def _last_state(self, since_ns: int) -> SegmentPlace | None:
        """The last segment before this time that a reader can begin with; None: the first one."""
        found = None
        for place in self.segment_places(Damage()):
            if place.header.first_ns >= since_ns:
                break
            if place.header.flags & HAS_STATE:
                found = place
        return found

    def _repeated(self, control: bytes, missed: int, costs: _Costs) -> tuple[bool, Iterable[RecordedIntake]]:
        """Return the steps of the `missed` segments before that this one repeats; and whether these are all. Raise
        DamagedError."""
        for record in layout.records(control) if missed else ():
            if record.kind == RecordKind.STATE:
                return True, (step._replace(is_state=True) for step in self._read(record.data, b"", costs))
            if record.kind == RecordKind.EARLIER and missed == 1:
                return True, self._read(record.data, b"", costs)
        return not missed, ()

    def _read(self, control: bytes, events: bytes | None, costs: _Costs, size: int = 0) -> Iterator[RecordedIntake]:
        """The steps of these records. `events`: None leaves EVENTS frames out; `size`: bytes of them all. Raises
        DamagedError."""
        nodes: dict[int, str] = {}
        step: RecordedIntake | None = None
        objects: list[bytes] = []
        at = 0
        for record in layout.records(control):
            costs.pay(records=1)
            match record.kind:
                case RecordKind.NODE:
                    nodes[record.node] = self._node_name(record.data)
                case RecordKind.STEP:
                    if step is not None:
                        yield step._replace(objects=tuple(objects))
                    step, objects = RecordedIntake(*layout.step_times(record.data), [], {}), []
                case RecordKind.FRAME | RecordKind.EVENTS if step is None or record.node not in nodes:
                    raise DamagedError("a frame has no step or no node")
                case RecordKind.FRAME if step is not None:
                    step.frames.append(RecordedFrame(nodes[record.node], record.type, record.data))
                case RecordKind.EVENTS if step is not None:
                    if at + record.length > size:
                        raise DamagedError("events are truncated")
                    if events is not None:
                        payload = events[at : at + record.length]
                        step.frames.append(RecordedFrame(nodes[record.node], FrameType.EVENTS, payload))
                    at += record.length
                case RecordKind.ANSWERS if step is not None:
                    step.answers.update(layout.json_of(record.data))
                    if len(step.answers) > _MOST_ANSWERS:
                        raise DamagedError("a step has answers for too many pods")
                case RecordKind.OBJECTS if step is not None:
                    objects.append(record.data)
                case RecordKind.DROPPED:
                    self.dropped += _count(layout.json_of(record.data).get("event_bytes"))
                case RecordKind.END:
                    self.end = layout.json_of(record.data)
        if step is not None:
            yield step._replace(objects=tuple(objects))

    def _node_name(self, data: bytes) -> str:
        name = escape(data[:_LONGEST_NODE_NAME].decode("utf-8", "replace"))
        self._names.add(name)
        if len(self._names) > _MOST_NODES:
            raise DamagedError(f"the recording has more than {_MOST_NODES:,} nodes")
        return name

    def _costs(self) -> _Costs:
        return _Costs.of(self.total_bytes)

    def _block(self, place: SegmentPlace, costs: _Costs, *, events: bool) -> bytes:
        header = place.header
        offset, size = place.offset, header.control_stored
        if events:
            offset, size = offset + size, header.events_stored
        place.file.seek(offset)
        data = place.file.read(size)
        crc = header.events_crc if events else header.control_crc
        if len(data) != size or zlib.crc32(data) != crc:
            raise DamagedError(f"segment {header.number} is damaged")
        costs.pay(**{"events": header.events_bytes} if events else {"control": header.control_bytes})
        return layout.decompress(data, header.compression, header.events_bytes if events else header.control_bytes)

    def find_end(self) -> "LastRecords":
        """Return how the run ended, from the last segment alone."""
        end: dict[str, object] = {}
        coverage: dict[str, object] | None = None
        costs = self._costs()
        for last in deque(self.segment_places(Damage()), 1):
            try:
                for record in layout.records(self._block(last, costs, events=False)):
                    costs.pay(records=1)
                    if record.kind == RecordKind.END:
                        end = layout.json_of(record.data)
                    elif record.kind == RecordKind.COVERAGE:
                        coverage = layout.json_of(record.data)
            except DamagedError:
                break  # counted when its steps are read
        return LastRecords(end, coverage)

    def segments(self) -> Iterator[SegmentHeader]:
        """The headers of all segments that can be found."""
        for place in self.segment_places(Damage()):
            yield place.header

    def blocks(self, damage: Damage, *, with_events: bool = True) -> Iterator[tuple[SegmentHeader, bytes, bytes]]:
        """The header of each segment, and its two blocks, decompressed. Damaged segments are left out, and counted in
        `damage`."""
        costs = self._costs()
        for place in self.segment_places(damage):
            try:
                control = self._block(place, costs, events=False)
                costs.pay(records=sum(1 for _ in layout.records(control)))
                events = self._block(place, costs, events=True) if with_events else b""
            except DamagedError as error:
                damage.add(error)
                continue
            yield place.header, control, events

    def segment_places(self, damage: Damage, first: SegmentPlace | None = None) -> Iterator[SegmentPlace]:
        """The segments, found by their headers, beginning with `first`; damaged ones are counted."""
        for file in self._files[0 if first is None else self._files.index(first.file) :]:
            begin = layout.FILE_BYTES
            if first is not None and file is first.file:
                begin = first.offset - layout.SEGMENT_BYTES
            yield from self._find_in(file, begin, damage)

    def _find_in(self, file: StoredBytes, offset: int, damage: Damage) -> Iterator[SegmentPlace]:
        size = size_of(file)
        while offset < size:
            file.seek(offset)
            try:
                header = layout.decode_header(file.read(layout.SEGMENT_BYTES))
            except DamagedError as error:
                found = _next_mark(file, offset + 1, size)
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
            yield SegmentPlace(file, header, after)
            offset = after + header.stored

    def _find_meta(self) -> dict[str, Any]:
        """The META record, from the first intact segment that contains it. Raises DamagedError."""
        costs = self._costs()
        for place in self.segment_places(Damage()):
            try:
                for record in layout.records(self._block(place, costs, events=False)):
                    costs.pay(records=1)
                    if record.kind == RecordKind.META:
                        return layout.json_of(record.data)
            except DamagedError:
                continue  # counted when its steps are read
        raise DamagedError("the file is cut short or damaged: no segment is complete", "another copy of the file")


def begin_ns(path: PathOrUrl) -> int | None:
    """Return when the first step of a file was taken, wall time; None: it cannot be read, or has none yet."""
    try:
        with RecordingReader(path) as reader:
            return next((header.first_ns for header in reader.segments()), None)
    except UsageError:
        return None


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _next_mark(file: StoredBytes, offset: int, size: int) -> int | None:
    """The offset of the next valid segment header after one that cannot be read; None: there is none."""
    tries, length = 0, _LEAST_PIECE
    while offset < size and tries < _MOST_TRIES:
        file.seek(offset)
        piece = file.read(length + len(layout.MARK) - 1)
        at = piece.find(layout.MARK)
        while at >= 0 and tries < _MOST_TRIES:
            tries += 1
            file.seek(offset + at)
            try:
                layout.decode_header(file.read(layout.SEGMENT_BYTES))
            except DamagedError:
                at = piece.find(layout.MARK, at + 1)
                continue
            return offset + at
        # Little at first: a file may be damaged in many places, each time before a small segment.
        offset, length = offset + length, min(2 * length, _PIECE)
    return None
