"""The EVENTS and STACKS frames of one source, with its index in RUN and a number for each frame.

The trap: a ring's bytes are not copied. They are queued in place, and the pipe advances the ring as it writes them.
"""

import math
import time
from typing import NamedTuple, Protocol

from kubectl_gadget.agent.pipe import FramePipe, WrittenRing
from kubectl_gadget.agent.symbols.gadget_stacks import Stacks
from kubectl_gadget.wire.agent_messages import encode_message
from kubectl_gadget.wire.frames import EventsHeader, FrameType, encode, header

_EVENTS_HEAD = 24
_REPORT_SECONDS = 0.4
"""After this time, an idle source reports up to when its events are complete. Gaps are known to this precision."""
_EARLY = 0.05
"""A report may be this much early, so that all sources of a session at rest report in the same turn."""


class Piece(NamedTuple):
    """Whole records of a snapshot, of an interval's sums, or of a recording, laid out as in a ring buffer."""

    records: bytes
    flags: int
    interval: int
    complete_until: int


class SettledRing(WrittenRing, Protocol):
    """A ring, read up to its settled position."""

    complete_until: int
    """Boot time in ns: every event stamped before it is before the settled position."""

    def batch(self) -> memoryview:
        """Returns the bytes between the last advance() and the settled position, in place."""


class Channel:
    """Sends the frames of the source with this index into `pipe`."""

    def __init__(self, index: int, pipe: FramePipe) -> None:
        self._index = index
        self._pipe = pipe
        self._sequence = 0
        self._is_idle = False
        self.due = math.inf
        """when the source has to report, even if idle, on the monotonic clock; inf: never"""

    def send_ring(self, ring: SettledRing) -> int:
        """Sends everything before the settled position, and returns the number of bytes. From an idle source, a frame
        without records reports from time to time up to when events are complete."""
        batch = ring.batch()
        length = len(batch)
        now = time.monotonic()
        if not length and self._is_idle and now < self.due - _EARLY:
            return 0
        head = EventsHeader(self._index, self._sequence, ring.complete_until).encode()
        self._pipe.put_ring(header(FrameType.EVENTS, _EVENTS_HEAD + length) + head, batch, ring)
        self._sequence += 1
        self._is_idle = not length
        self.due = now + _REPORT_SECONDS
        return length

    def send_piece(self, piece: Piece) -> None:
        head = EventsHeader(self._index, self._sequence, piece.complete_until, piece.flags, piece.interval)
        self._pipe.put(encode(FrameType.EVENTS, head.encode() + piece.records))
        self._sequence += 1

    def send_stacks(self, stacks: Stacks) -> None:
        """Sends new stacks. Call it before the events that refer to them are sent."""
        if new := stacks.take_new(self._index):
            self._pipe.put(encode_message(new))
