"""Step 1 of the pipeline: where frames come from. A live run's backlog is one source, a recording is another.

All nodes' frames come from one source, so a CONTAINERS frame is seen before the events that need it. The trap:
everything that depends on time or on another thread must be part of a step (the time, the frames, selections), or a
replay of the same steps gives other rows than the run did.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from kubectl_gadget.session.nodes.backlog import Backlog, Item
from kubectl_gadget.session.nodes.coalesce import coalesced
from kubectl_gadget.session.steps.running_time import RunningTime

_IDLE_SECONDS = 0.25
"""A step is taken at least this often, so that rows that wait are checked again."""


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
