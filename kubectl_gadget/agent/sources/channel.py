"""The EVENTS and STACKS frames of one source, with its index in RUN and a number for each frame.

The trap: a ring's bytes are not copied. They are queued in place, and the pipe advances the ring as it writes them.
"""

import time
from typing import Protocol

from kubectl_gadget.agent.answers.pieces import Piece
from kubectl_gadget.agent.pipe import FramePipe
from kubectl_gadget.agent.symbols.gadget_stacks import Stacks
from kubectl_gadget.wire import EventsHeader, FrameType, encode, header
from kubectl_gadget.wire.agent_messages import encode_message

_EVENTS_HEAD = 24
_SAY_COMPLETE_NS = 400_000_000
"""An idle source reports this often up to when it is complete; gaps are known no more exactly than that."""


class SettledRing(Protocol):
    """A ring, read up to its settled position."""

    size: int
    """in bytes"""
    complete_until: int
    """Boot time in ns: every event stamped before it lies before the settled position."""

    def batch(self) -> memoryview:
        """Returns the bytes between the last advance() and the settled position, in place."""

    def advance(self, count: int) -> None:
        """Gives `count` bytes back."""


class Channel:
    """Sends the frames of the source with this index into `pipe`."""

    def __init__(self, index: int, pipe: FramePipe) -> None:
        self._index = index
        self._pipe = pipe
        self._sequence = 0
        self._last_sent = 0
        self._last_bytes = 0

    def send_ring(self, ring: SettledRing) -> int:
        """Sends everything before the settled position, and returns the number of bytes. Now and then it sends a frame
        without records, which only reports up to when events are complete."""
        batch = ring.batch()
        length = len(batch)
        now = time.monotonic_ns()
        if not length and not self._last_bytes and now - self._last_sent < _SAY_COMPLETE_NS:
            return 0
        head = EventsHeader(self._index, self._sequence, ring.complete_until).encode()
        self._pipe.put_ring(header(FrameType.EVENTS, _EVENTS_HEAD + length) + head, batch, ring)
        self._sequence += 1
        self._last_sent = now
        self._last_bytes = length
        return length

    def send_piece(self, piece: Piece) -> None:
        """Sends a piece of a snapshot, of an interval's sums, or of a recording."""
        head = EventsHeader(self._index, self._sequence, piece.complete_until, piece.flags, piece.interval)
        self._pipe.put(encode(FrameType.EVENTS, head.encode() + piece.records))
        self._sequence += 1

    def send_stacks(self, stacks: Stacks) -> None:
        """Sends new stacks. Call it before the events that refer to them are sent."""
        if new := stacks.take_new(self._index):
            self._pipe.put(encode_message(new))
