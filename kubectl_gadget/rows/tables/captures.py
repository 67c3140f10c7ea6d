"""Collects the captures of a flight recorder (`traceloop`); each becomes one table.

The trap: the rows are old when they arrive, and captures overlap in time, so rows are
sorted only within a capture.
"""

from collections import deque

import numpy as np

from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.collector import Collector
from kubectl_gadget.rows.rows import NO_ROWS, Rows
from kubectl_gadget.rows.tables.aggregation import Block


class Captures(Collector):
    """The captures of one gadget. A capture arrives in one piece from its source, and is released at once."""

    def __init__(self) -> None:
        self._ready: deque[Batch] = deque()

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
        return self.release(0)

    def next_release_ns(self) -> int | None:
        return 0 if self._ready else None
