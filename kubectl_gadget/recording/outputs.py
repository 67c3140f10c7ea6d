"""Where the segments of a recording go: to one file, to files that replace each other, or to memory until a match.

A file may be one of an object store (recording/recording_places.py).

The trap: each file must be readable alone, so its first segment has META and STATE.
"""

import re
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.recording import layout
from kubectl_gadget.recording.recording_places import NewFile, PathOrUrl, create, names_near, remove
from kubectl_gadget.recording.segment_state import RunState
from kubectl_gadget.recording.segments import PackedSegment, Segment, control_of


class Output(ABC):
    """Takes whole segments. All methods are called from the writer's thread, and raise OSError and UsageError."""

    begins = False
    """whether the next segment is the first one of a file"""

    def start(self) -> None:  # noqa: B027
        """Called once, before the other methods."""

    def is_last(self, size: int) -> bool:
        """Whether a segment of about this size will be the last one of its file."""
        return False

    @abstractmethod
    def write(self, segment: PackedSegment) -> None:
        """Writes a segment."""

    @abstractmethod
    def close(self) -> None:
        """The recording has ended."""


class Rotation(NamedTuple):
    """When a new file begins, and how many files are kept; None: no limit."""

    bytes: int | None = None
    seconds: float | None = None
    keep: int | None = None


class Ring(NamedTuple):
    """What is kept in memory until something happens."""

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
                self._warn(f"{path} cannot be removed: {why}. The recording goes on, and such files are kept")
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


def _unused(path: PathOrUrl) -> PathOrUrl:
    """Returns the first file of a numbered recording. Raises UsageError when there is one of this name already."""
    first = numbered(path, 1)
    pattern = re.compile(rf"{re.escape(path.stem)}-[0-9].*{re.escape(first.suffix)}")
    for known in sorted(filter(pattern.fullmatch, names_near(path))):
        raise UsageError(f"{path.with_name(known)}: the file exists", "another name, or remove it")
    return first
