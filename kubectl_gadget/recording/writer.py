"""Writes a recording during a run, in a thread of its own.

The run hands over steps and continues. When the disk is slower than the frames arrive, events are dropped and counted,
in the recording and in `dropped`; when the disk is full, the recording ends but the run does not. Each segment is
written as a whole, so a killed client leaves a file that can be read up to its last segment. The trap: frames about
containers, clocks or stacks are never dropped, since nothing after them could be read otherwise.
"""

import json
import os
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.recording import compression, layout
from kubectl_gadget.recording.layout import RecordKind, SegmentHeader
from kubectl_gadget.wire import FrameType

_WAITING_BYTES = 64 << 20
"""The most bytes that may wait for the disk."""
_SEGMENT_BYTES = 4 << 20
"""A segment is written at this size, or after the seconds below: the most that is lost when a client is killed."""
_SEGMENT_SECONDS = 1.0
_META_EVERY = 8
"""META is repeated in every eighth segment, and is in the first two: one damaged segment must not make all others
useless."""
_JOIN_SECONDS = 10.0


class RecordedFrame(NamedTuple):
    """One frame of one node."""

    node: str
    type: int
    payload: bytes


class _Step(NamedTuple):
    now_ns: int
    wall_ns: int
    frames: list[RecordedFrame]
    answers: Mapping[str, Any]
    dropped: Mapping[str, int]


class RecordingWriter:
    """`meta` says what was run. `failed` is called from the writer's thread, with the reason, if the recording ends
    early."""

    def __init__(self, path: Path, meta: Mapping[str, Any], failed: Callable[[str], object]) -> None:
        """Creates the file. Raises UsageError when it exists or cannot be created."""
        self.path = path
        self.dropped = 0
        """bytes of events that did not fit into the buffer"""
        self._failed = failed
        self._meta = _json(meta)
        try:
            # Rows contain programs' arguments, so nobody else may read them.
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        except FileExistsError:
            raise UsageError(f"--record {path}: the file exists", "another name, or remove it") from None
        except OSError as error:
            raise UsageError(f"--record {path}: {error.strerror}") from None
        self._condition = threading.Condition()
        self._waiting: deque[_Step] = deque()
        self._waiting_bytes = 0
        self._end: Mapping[str, Any] | None = None
        self._broken = False
        self._segment = _Segment(0, self._meta, time.time_ns())
        self._written = 0
        self._thread = threading.Thread(target=self._run, name="recording", daemon=True)
        self._thread.start()

    def step(
        self, now_ns: int, wall_ns: int, frames: Iterable[RecordedFrame], answers: Mapping[str, Any] | None = None
    ) -> None:
        """Takes what the run has taken. Never blocks; the frames' payloads must not change afterwards."""
        if self._broken:
            return
        with self._condition:
            kept, dropped, size = list[RecordedFrame](), 0, 0
            for frame in frames:
                length = len(frame.payload)
                if frame.type == FrameType.EVENTS and self._waiting_bytes + size + length > _WAITING_BYTES:
                    dropped += length
                    continue
                size += length
                kept.append(frame)
            self.dropped += dropped
            missing = {"event_bytes": dropped} if dropped else {}
            self._waiting.append(_Step(now_ns, wall_ns, kept, answers or {}, missing))
            self._waiting_bytes += size
            self._condition.notify()

    def close(self, end: Mapping[str, Any]) -> bool:
        """Writes waiting steps and how the run ended. Returns whether the recording is complete."""
        with self._condition:
            self._end = end
            self._condition.notify()
        self._thread.join(_JOIN_SECONDS)
        if self._thread.is_alive():
            self._fail(f"the disk did not take all of it within {_JOIN_SECONDS:.0f} s")
        return not self._broken and not self.dropped

    def _run(self) -> None:
        try:
            _write(self._file, layout.file_header())
            while not self._work():
                pass
        except OSError as error:
            self._fail(error.strerror or str(error))
        except GadgetError as error:
            self._fail(str(error))
        finally:
            os.close(self._file)

    def _fail(self, why: str) -> None:
        with self._condition:
            first, self._broken = not self._broken, True
            self._waiting.clear()
            self._waiting_bytes = 0
        if first:
            self._failed(f"the recording {self.path} ended: {why}; the run goes on, and the file reads up to there")

    def _work(self) -> bool:
        """Writes waiting steps; returns whether the recording has ended."""
        with self._condition:
            if not self._waiting and self._end is None:
                self._condition.wait(_SEGMENT_SECONDS)
            steps, self._waiting = self._waiting, deque()
            end = self._end
        for step in steps:
            self._segment.add(step)
            with self._condition:
                self._waiting_bytes -= sum(len(frame.payload) for frame in step.frames)
            if self._segment.size >= _SEGMENT_BYTES:
                self._flush()
        if end is not None and not self._waiting:
            self._segment.end(end)
            self._flush()
            return True
        if self._segment.is_due:
            self._flush()
        return self._broken

    def _flush(self) -> None:
        _write(self._file, self._segment.encode())
        self._written += 1
        meta = self._meta if self._written == 1 or self._written % _META_EVERY == 0 else None
        self._segment = _Segment(self._written, meta, time.time_ns())


class _Segment:
    """A segment under construction."""

    def __init__(self, number: int, meta: bytes | None, wall_ns: int) -> None:
        self._number = number
        self._control = bytearray()
        self._events: list[bytes] = []
        self._events_bytes = 0
        self._nodes: dict[str, int] = {}
        self._first_ns = self._last_ns = wall_ns
        self._since = time.monotonic()
        self._has_steps = False
        if meta is not None:
            self._control += layout.record(RecordKind.META, meta)

    @property
    def size(self) -> int:
        """Bytes before compression."""
        return len(self._control) + self._events_bytes

    @property
    def is_due(self) -> bool:
        """Whether it contains steps that have waited long enough."""
        return self._has_steps and time.monotonic() - self._since >= _SEGMENT_SECONDS

    def add(self, step: _Step) -> None:
        if not self._has_steps:
            self._first_ns = step.wall_ns
            self._has_steps = True
        self._last_ns = step.wall_ns
        # First, so that a reader has it before it processes the frames, as the run had.
        self._control += layout.step_record(step.now_ns, step.wall_ns)
        if step.answers:
            self._control += layout.record(RecordKind.ANSWERS, _json(step.answers))
        if step.dropped:
            self._control += layout.record(RecordKind.DROPPED, _json(step.dropped))
        for frame in step.frames:
            node = self._node(frame.node)
            if frame.type == FrameType.EVENTS:
                self._control += layout.events_record(node, len(frame.payload))
                self._events.append(frame.payload)
                self._events_bytes += len(frame.payload)
            else:
                self._control += layout.record(RecordKind.FRAME, frame.payload, node=node, type=frame.type)

    def end(self, end: Mapping[str, Any]) -> None:
        self._control += layout.record(RecordKind.END, _json(end))

    def encode(self) -> bytes:
        """Header and both blocks."""
        control_plain, events_plain = bytes(self._control), b"".join(self._events)
        how = compression.best()
        control, events = compression.compress(control_plain, how), compression.compress(events_plain, how)
        header = SegmentHeader(
            self._number,
            self._first_ns,
            self._last_ns,
            how,
            len(control),
            len(control_plain),
            len(events),
            len(events_plain),
            zlib.crc32(control),
            zlib.crc32(events),
        )
        return b"".join((header.encode(), control, events))

    def _node(self, name: str) -> int:
        number = self._nodes.get(name)
        if number is None:
            number = self._nodes[name] = len(self._nodes)
            self._control += layout.record(RecordKind.NODE, name.encode(), node=number)
        return number


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
