"""Collects the captures of a flight recorder (`traceloop`); each becomes one table.

An events.collector.Collector. The trap: the rows are old when they arrive, and captures overlap in time, so rows are
sorted only within a capture.
"""

from collections import deque
from collections.abc import Hashable

import numpy as np

from kubectl_gadget.events.batch import Batch
from kubectl_gadget.events.rows import NO_ROWS, Rows
from kubectl_gadget.views.tables.aggregation import Block


class Captures:
    """The captures of one gadget. A capture arrives in one piece from its source, and is released at once."""

    late = 0
    """rows are never late"""

    def __init__(self) -> None:
        self._ready: deque[Batch] = deque()

    def expect(self, source: Hashable, wall_ns: int) -> None:
        """Does nothing: no capture waits for another source."""

    def join(self, source: Hashable) -> None:
        """Adds a source."""

    def leave(self, source: Hashable) -> None:
        """Removes a source; what it sent is kept."""

    def complete(self, source: Hashable, wall_ns: int) -> None:
        """Does nothing: times do not matter here."""

    def end(self, source: Hashable, now_ns: int, is_rest: bool) -> None:
        """Does nothing: each capture is complete when it arrives."""

    def add(self, batch: Batch, now_ns: int) -> None:
        """Takes a capture, or those of its rows that passed the filter."""
        if len(batch):
            order = np.argsort(batch.raw("number"), kind="stable")
            self._ready.append(batch.select(order))

    def release(self, now_ns: int) -> Rows:
        if not self._ready:
            return NO_ROWS
        rows = Rows([self._ready.popleft()])
        return Block(rows, rows)

    def flush(self) -> Rows:
        """The next capture. Call it until it returns none."""
        return self.release(0)

    def next_release_ns(self) -> int | None:
        """The latest time for the next call of release; None if nothing is waiting."""
        return 0 if self._ready else None
