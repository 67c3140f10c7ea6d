"""Step 1 of the pipeline: where frames come from. A live run's backlog is one source, a recording is another.

All nodes' frames come from one source, so a CONTAINERS frame is seen before the events that need it. The trap:
everything that depends on time or on another thread must be part of a step (the time, the frames, selections), or a
replay of the same steps gives other rows than the run did.
"""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from kubectl_gadget.run.nodes.backlog import Backlog, Item
from kubectl_gadget.run.nodes.coalesce import coalesced

_IDLE_SECONDS = 0.25
"""A step is taken at least this often, so that rows that wait are checked again."""
_MOST_NS = 500_000_000
"""The most that passes between two calls of RunningTime. Callers that call at least this often see real time."""


class Step(NamedTuple):
    """What the pipeline processes at a time."""

    items: Sequence[Item]
    now_ns: int
    """when it was taken; only differences are meaningful"""


class FrameSource(Protocol):
    """Delivers steps to the pipeline's thread."""

    def take(self, due_ns: int | None) -> Step | None:
        """Returns the next step, at `due_ns` at the latest, even without items; None at the end."""

    def drain(self) -> None:
        """Discards further frames after the pipeline has ended, so that their senders do not block."""


class RunningTime:
    """A clock that stops while this process does not run: stopped (Ctrl-Z), asleep, or blocked in a write. Call it for
    nanoseconds; only differences between them are meaningful.

    Rows wait a bounded time for those of other nodes. After a pause that time would be over for all of them at once,
    before anything that came meanwhile was read. So between two distant calls this clock advances only a little.
    """

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._last = clock()
        self._passed = 0

    def __call__(self) -> int:
        now = self._clock()
        self._passed += min(now - self._last, _MOST_NS)
        self._last = now
        return self._passed


class LiveFrames:
    """The frames of a run's nodes, as they come."""

    def __init__(self, backlog: Backlog, clock: Callable[[], int] | None = None) -> None:
        self._backlog = backlog
        self._clock = clock or RunningTime()

    def take(self, due_ns: int | None) -> Step | None:
        """See FrameSource."""
        wait = _IDLE_SECONDS if due_ns is None else min(_IDLE_SECONDS, max(0.0, (due_ns - self._clock()) / 1e9))
        items = self._backlog.take(wait)
        return None if items is None else Step(list(coalesced(items)), self._clock())

    def drain(self) -> None:
        """See FrameSource."""
        while self._backlog.take(1.0) is not None:
            pass
