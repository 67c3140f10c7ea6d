"""Writes a recording during a run, in a thread of its own: to one file, to files that replace each other, or to memory
until a match. A file may be one of an object store (recording/places.py).

Each file must be readable alone, so its first segment has META and STATE.
"""

import re
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from kubectl_gadget.errors import GadgetError, UsageError, internal_error
from kubectl_gadget.recording import layout
from kubectl_gadget.recording.places import NewFile, ObjectUrl, PathOrUrl, create, names_near, remove
from kubectl_gadget.recording.segments import PackedSegment, RecordedFrame, RunState, Segment, TakenStep, control_of
from kubectl_gadget.wire.frames import FrameType


class Output(ABC):
    """Takes whole segments. All methods are called from the writer's thread, and raise OSError and UsageError."""

    begins = False
    """True if the next segment is the first one of a file"""

    def start(self) -> None:  # noqa: B027
        """Called once, before the other methods."""

    def is_last(self, size: int) -> bool:
        """True if a segment of about this size will be the last one of its file."""
        return False

    @abstractmethod
    def write(self, segment: PackedSegment) -> None:
        """Writes a segment."""

    @abstractmethod
    def close(self) -> None:
        """The recording has ended."""


class Rotation(NamedTuple):
    """The limits of a file, and the number of files to keep; None: no limit."""

    bytes: int | None = None
    seconds: float | None = None
    keep: int | None = None


class Ring(NamedTuple):
    """The limits of the memory that is kept until something happens."""

    seconds: float
    bytes: int
    after_seconds: float
    """how long it goes on after a match, before the file is written"""
    files: int
    """how many files are written at most"""


class OneFile(Output):
    """One file for the whole recording."""

    def __init__(self, path: PathOrUrl) -> None:
        """Creates the file. Raises UsageError."""
        self._file = create(path)

    def start(self) -> None:
        self._file.write(layout.file_header())

    def write(self, segment: PackedSegment) -> None:
        self._file.write(segment.data)

    def close(self) -> None:
        self._file.close()


class RotatedFiles(Output):
    """Files NAME-000001.kgr, NAME-000002.kgr, …; the oldest are removed."""

    def __init__(self, path: PathOrUrl, rotation: Rotation, warn: Callable[[str], object]) -> None:
        """Creates the first file. `warn` is called in the writer's thread. Raises UsageError."""
        self._warn: Callable[[str], object] | None = warn
        self._last_bytes = 0
        self._path = path
        self._rotation = rotation
        self._kept: deque[PathOrUrl] = deque()
        self._number = 1
        self._file: NewFile | None = create(_unused(path))
        self._begin()

    def is_last(self, size: int) -> bool:
        most, seconds = self._rotation.bytes, self._rotation.seconds
        too_large = most is not None and self._bytes + size + max(size, self._last_bytes) > most
        return too_large or (seconds is not None and time.monotonic() - self._since >= seconds)

    def write(self, segment: PackedSegment) -> None:
        if self.begins:
            self.close()
            self._number += 1
            self._file = create(numbered(self._path, self._number))
            self._begin()
        assert self._file is not None
        try:
            if not self._last_bytes:
                self._file.write(layout.file_header())
            self._file.write(segment.data)
        except BaseException:
            self._drop_empty()
            raise
        self._bytes += len(segment.data)
        self._last_bytes = len(segment.data)
        self.begins = segment.continues

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _drop_empty(self) -> None:
        """Removes a later file that has no whole segment, such as on a full disk: nothing can be read in it."""
        if self._number > 1 and not self._last_bytes:
            self.close()
            self._remove(self._kept.pop())

    def _begin(self) -> None:
        self._kept.append(numbered(self._path, self._number))
        while self._rotation.keep is not None and len(self._kept) > self._rotation.keep:
            self._remove(self._kept.popleft())
        self._bytes, self._last_bytes, self._since = layout.FILE_BYTES, 0, time.monotonic()

    def _remove(self, path: PathOrUrl) -> None:
        """Removes a file, or leaves it: credentials that may write need not allow removing."""
        try:
            remove(path)
        except (OSError, GadgetError) as error:
            if self._warn is not None:
                why = (error.strerror if isinstance(error, OSError) else None) or error
                self._warn(f"{path} cannot be removed: {why}. The recording continues, and these files are kept")
            self._warn = None  # each of the following ones has the same fault


class RingOutput(Output):
    """Keeps the last segments in memory, and writes them to a file when asked: NAME-000001.kgr, NAME-000002.kgr, …"""

    def __init__(self, path: PathOrUrl, ring: Ring, meta: bytes, wrote: Callable[[PathOrUrl, str], object]) -> None:
        """`wrote` is called after each file, with the reason for it, in the writer's thread. Raises UsageError."""
        _unused(path)
        self._path = path
        self._ring = ring
        self._meta = meta
        self._wrote = wrote
        self._segments: deque[PackedSegment] = deque()
        self._bytes = 0
        self._before = RunState()
        """before the first of the segments"""
        self._number = 0
        self._asked: tuple[str, float] | None = None

    @property
    def files(self) -> int:
        return self._number

    def ask(self, why: str) -> None:
        """Asks that the memory be written, and what comes shortly after. May be called from any thread."""
        if self._asked is None and self._number < self._ring.files:
            self._asked = why, time.monotonic() + self._ring.after_seconds

    def write(self, segment: PackedSegment) -> None:
        # Decompressed, records are ten times as large: META alone would fill the memory of an idle run.
        self._segments.append(segment._replace(control=b"", repeated=b""))
        self._bytes += len(segment.data)
        oldest = segment.clock_ns - round(self._ring.seconds * 1e9)
        while len(self._segments) > 1 and (self._segments[0].clock_ns < oldest or self._bytes > self._ring.bytes):
            self._forget()
        if self._asked is not None and time.monotonic() >= self._asked[1]:
            self._write_file(self._asked[0])

    def close(self) -> None:
        """See Output. Writes what was asked for."""
        if self._asked is not None:
            self._write_file(self._asked[0])

    def _forget(self) -> None:
        segment = self._segments.popleft()
        self._bytes -= len(segment.data)
        self._before.apply(control_of(segment.data))

    def _write_file(self, why: str) -> None:
        self._asked = None
        self._number += 1
        path = numbered(self._path, self._number)
        file = create(path)
        try:
            first = self._segments[0]
            file.write(layout.file_header())
            if first.number:  # the first one of the run has META, and nothing was before it
                head = Segment(first.number - 1, first.first_ns, self._meta, self._before.encode())
                file.write(head.pack().data)
            number = first.number
            while self._segments:
                number = self._segments[0].number
                file.write(self._segments[0].data)
                self._forget()
            end = Segment(number + 1, time.time_ns())
            end.end({"kept": why})
            file.write(end.pack().data)
        finally:
            file.close()
        self._wrote(path, why)


def numbered(path: PathOrUrl, number: int) -> PathOrUrl:
    """night.kgr: night-000001.kgr."""
    return path.with_name(f"{path.stem}-{number:06}{path.suffix or '.kgr'}")


def is_first(path: PathOrUrl) -> bool:
    """True if this is the first of numbered files."""
    return path.stem.endswith("-000001")


def one_file(parts: Iterable[Path]) -> bytes:
    """Return numbered files of one recording as one file. Leaves out parts that another thread removes."""
    found = [layout.file_header()]
    for part in parts:
        with suppress(FileNotFoundError):
            found.append(part.read_bytes()[layout.FILE_BYTES :])
    return b"".join(found)


def _unused(path: PathOrUrl) -> PathOrUrl:
    """Returns the first file of a numbered recording. Raises UsageError when there is one of this name already."""
    first = numbered(path, 1)
    pattern = re.compile(rf"{re.escape(path.stem)}-[0-9].*{re.escape(first.suffix)}")
    for known in sorted(filter(pattern.fullmatch, names_near(path))):
        raise UsageError(f"{path.with_name(known)}: the file exists", "another name, or remove it")
    return first


# The thread.


WAITING_BYTES = 64 << 20
"""The most bytes that may wait for the disk."""
FULL_SEGMENT_BYTES = 4 << 20
"""A segment is written at this size, or after the seconds below: the most that is lost when a client is killed."""
_SEGMENT_SECONDS = 1.0
_OBJECT_SECONDS = 5.0
"""the same for an object store, which charges for each object"""
_META_EVERY = 8
"""META and STATE are repeated in every eighth segment, and META is in the first two: one damaged segment must not make
all others useless."""
STATE_SHARE = 10
"""STATE is repeated once the segments since the last one are this many times its size."""
_MOST_STATE = 64 << 20
_EXPECTED_RATIO = 6
"""About how much smaller compression makes control blocks."""
_JOIN_SECONDS, _OBJECT_JOIN_SECONDS = 10.0, 60.0


class RecordingWriter:
    """`meta` says what was run. `failed` is called from the writer's thread, with the reason, if the recording ends
    early."""

    def __init__(
        self,
        path: PathOrUrl,
        meta: Mapping[str, object],
        failed: Callable[[str], object],
        rotation: Rotation | None = None,
        ring: Ring | None = None,
        wrote: Callable[[PathOrUrl, str], object] = lambda path, why: None,
        consequence: str = "The run continues",
        warn: Callable[[str], object] = lambda text: None,
    ) -> None:
        """Creates the file, if there is no ring. Raises UsageError when it exists or cannot be created. `wrote` is
        called from the writer's thread when what the ring held was written to a file. `consequence`: what follows for
        the run when the recording ends early. `warn` is called from the writer's thread, for what does not end it."""
        self.path = path
        self.dropped = 0
        """bytes of events that did not fit into the buffer"""
        self._consequence = consequence
        self._failed = failed
        self._seconds, self._join_seconds = _SEGMENT_SECONDS, _JOIN_SECONDS
        if isinstance(path, ObjectUrl):
            self._seconds, self._join_seconds = _OBJECT_SECONDS, _OBJECT_JOIN_SECONDS
        self._meta = layout.to_json(meta)
        self._ring = None if ring is None else RingOutput(path, ring, self._meta, wrote)
        self._output: Output = self._ring or (RotatedFiles(path, rotation, warn) if rotation else OneFile(path))
        self._condition = threading.Condition()
        self._waiting: deque[TakenStep] = deque()
        self._waiting_bytes = 0
        self._end: Mapping[str, object] | None = None
        self._coverage: Mapping[str, object] | None = None
        self._broken = False
        self._segment = Segment(0, time.time_ns(), self._meta)
        self._state = RunState()
        self._state_bytes = 0
        self._bytes_since_state = 0
        self._thread = threading.Thread(target=self._run, name="recording", daemon=True)
        self._thread.start()

    def step(
        self,
        now_ns: int,
        wall_ns: int,
        frames: Iterable[RecordedFrame],
        answers: Mapping[str, object] | None = None,
        objects: Iterable[Mapping[str, object]] = (),
    ) -> None:
        """Adds a step. Never blocks; the frames' payloads must not change afterwards."""
        if self._broken:
            return
        with self._condition:
            kept, dropped, size = list[RecordedFrame](), 0, 0
            for frame in frames:
                length = len(frame.payload)
                if frame.type == FrameType.EVENTS and self._waiting_bytes + size + length > WAITING_BYTES:
                    dropped += length
                    continue
                size += length
                kept.append(frame)
            self.dropped += dropped
            missing = {"event_bytes": dropped} if dropped else {}
            self._waiting.append(TakenStep(now_ns, wall_ns, kept, answers or {}, objects, missing))
            self._waiting_bytes += size
            self._condition.notify()

    def keep(self, why: str) -> None:
        """Asks that the ring be written to a file. May be called from any thread."""
        if self._ring is not None:
            self._ring.ask(why)

    @property
    def files(self) -> int:
        """The number of files that the ring was written to."""
        return 0 if self._ring is None else self._ring.files

    def close(self, end: Mapping[str, object], coverage: Mapping[str, object] | None = None) -> bool:
        """Write waiting steps, how the run ended and who was traced. Return whether the recording is complete."""
        with self._condition:
            self._end, self._coverage = end, coverage
            self._condition.notify()
        self._thread.join(self._join_seconds)
        if self._thread.is_alive():
            self._fail(f"not all of it could be written within {self._join_seconds:.0f} s")
        return not self._broken and not self.dropped

    def _run(self) -> None:
        try:
            self._output.start()
            while not self._work():
                pass
        except OSError as error:
            self._fail(error.strerror or str(error))
        except GadgetError as error:
            self._fail(str(error))
        except Exception as error:
            self._fail(str(internal_error(error)))
        finally:
            self._close_output()

    def _close_output(self) -> None:
        try:
            self._output.close()
        except (OSError, GadgetError) as error:
            self._fail(str(error))

    def _fail(self, why: str) -> None:
        with self._condition:
            first, self._broken = not self._broken, True
            self._waiting.clear()
            self._waiting_bytes = 0
        if first:
            self._failed(f"the recording {self.path} ended: {why}. {self._consequence}; what was written can be read")

    def _work(self) -> bool:
        """Writes waiting steps; returns whether the recording has ended."""
        with self._condition:
            if not self._waiting and self._end is None:
                self._condition.wait(self._seconds)
            steps, self._waiting = self._waiting, deque()
            end = self._end
        for step in steps:
            self._segment.add(step)
            with self._condition:
                self._waiting_bytes -= sum(len(frame.payload) for frame in step.frames)
            if self._segment.size >= FULL_SEGMENT_BYTES:
                self._flush()
        if end is not None and not self._waiting:
            self._segment.end(end, self._coverage)
            self._flush(is_last=True)
            return True
        if self._segment.is_due(self._seconds):
            self._flush()
        return self._broken

    def _flush(self, is_last: bool = False) -> None:
        segment = self._segment
        if not is_last and self._output.is_last(segment.size // _EXPECTED_RATIO):
            segment.end({"continues": True})
        packed = segment.pack()
        self._output.write(packed)
        self._state.apply(packed.control)
        self._bytes_since_state += len(packed.data)
        number, begins = packed.number + 1, self._output.begins
        is_eighth = number % _META_EVERY == 0
        meta = self._meta if number == 1 or is_eighth or begins else None
        state = b""
        if begins or (is_eighth and self._bytes_since_state >= STATE_SHARE * self._state_bytes):
            state = self._state.encode()
            self._state_bytes, self._bytes_since_state = len(state) // _EXPECTED_RATIO, 0
            state = state if len(state) <= _MOST_STATE else b""
        earlier = b"" if begins else packed.repeated
        self._segment = Segment(number, time.time_ns(), meta, state, earlier)
