"""What a flight recorder (`traceloop`) has kept, one capture after the other, each as one table.

An events.collector.Collector. The trap: the rows are old when they come, and captures overlap in time, so rows are
sorted only within a capture.
"""

from collections import deque
from collections.abc import Hashable

import numpy as np

from kubectl_gadget.events.batch import Batch
from kubectl_gadget.events.rows import NO_ROWS, Rows
from kubectl_gadget.views.tables.aggregation import Block


class Captures:
    """Of one gadget. A capture comes in one piece from its source, and is released at once."""

    late = 0
    """Nothing is."""

    def __init__(self) -> None:
        self._ready: deque[Batch] = deque()

    def expect(self, source: Hashable, wall_ns: int) -> None:
        """No capture waits for another source."""

    def join(self, source: Hashable) -> None:
        """A source is attached."""

    def leave(self, source: Hashable) -> None:
        """It is not any more; what it sent counts."""

    def complete(self, source: Hashable, wall_ns: int) -> None:
        """Times mean nothing here."""

    def end(self, source: Hashable, now_ns: int, is_rest: bool) -> None:
        """Each capture is whole."""

    def add(self, batch: Batch, now_ns: int) -> None:
        """A capture, or those of its rows that are wanted."""
        if len(batch):
            order = np.argsort(batch.raw("number"), kind="stable")
            self._ready.append(batch.select(order))

    def release(self, now_ns: int) -> Rows:
        """The next capture."""
        if not self._ready:
            return NO_ROWS
        rows = Rows([self._ready.popleft()])
        return Block(rows, rows)

    def flush(self) -> Rows:
        """The same; to be called until it has none."""
        return self.release(0)

    def next_release_ns(self) -> int | None:
        """When release has to be called at the latest; None when nothing waits."""
        return 0 if self._ready else None
