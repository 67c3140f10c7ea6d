"""Writes a recording during a run, in a thread of its own.

The run hands over steps and continues. When the disk is slower than the frames arrive, events are dropped and counted,
in the recording and in `dropped`; when the disk is full, the recording ends but the run does not. Each segment is
written as a whole, so a killed client leaves a file that can be read up to its last segment. The trap: frames about
containers, clocks or stacks are never dropped, since nothing after them could be read otherwise.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kubectl_gadget.errors import GadgetError, internal_error
from kubectl_gadget.recording import layout
from kubectl_gadget.recording.outputs import OneFile, Output, Ring, RingOutput, RotatedFiles, Rotation
from kubectl_gadget.recording.recording_places import ObjectUrl, PathOrUrl
from kubectl_gadget.recording.segment_state import RunState
from kubectl_gadget.recording.segments import RecordedFrame, Segment, TakenStep
from kubectl_gadget.wire.frames import FrameType

_WAITING_BYTES = 64 << 20
"""The most bytes that may wait for the disk."""
_SEGMENT_BYTES = 4 << 20
"""A segment is written at this size, or after the seconds below: the most that is lost when a client is killed."""
_SEGMENT_SECONDS = 1.0
_OBJECT_SECONDS = 5.0
"""the same for an object store, which charges for each object"""
_META_EVERY = 8
"""META and STATE are repeated in every eighth segment, and META is in the first two: one damaged segment must not make
all others useless."""
_STATE_SHARE = 10
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
        meta: Mapping[str, Any],
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
        self._end: Mapping[str, Any] | None = None
        self._coverage: Mapping[str, Any] | None = None
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
        answers: Mapping[str, Any] | None = None,
        objects: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """Adds a step. Never blocks; the frames' payloads must not change afterwards."""
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
            self._waiting.append(TakenStep(now_ns, wall_ns, kept, answers or {}, objects, missing))
            self._waiting_bytes += size
            self._condition.notify()

    def keep(self, why: str) -> None:
        """Asks that the ring be written to a file. May be called from any thread."""
        if self._ring is not None:
            self._ring.ask(why)

    @property
    def files(self) -> int:
        """How many files the ring was written to."""
        return 0 if self._ring is None else self._ring.files

    def close(self, end: Mapping[str, Any], coverage: Mapping[str, Any] | None = None) -> bool:
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
            if self._segment.size >= _SEGMENT_BYTES:
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
        if begins or (is_eighth and self._bytes_since_state >= _STATE_SHARE * self._state_bytes):
            state = self._state.encode()
            self._state_bytes, self._bytes_since_state = len(state) // _EXPECTED_RATIO, 0
            state = state if len(state) <= _MOST_STATE else b""
        earlier = b"" if begins else packed.repeated
        self._segment = Segment(number, time.time_ns(), meta, state, earlier)
