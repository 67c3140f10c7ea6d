"""Where the rows of a flight recorder wait until their recording is whole, to be shown as one table.

It takes the place of events.merge.TimeMerge in the pipeline. The trap: the rows are old when they come, and recordings
overlap in time, so they are put in order only inside of a recording.
"""

from collections import deque
from collections.abc import Hashable

import numpy as np

from kubectl_gadget.events.batch import Batch
from kubectl_gadget.events.rows import NO_ROWS, Rows
from kubectl_gadget.views.tables.aggregation import Block


class Recordings:
    """Of one gadget. A recording comes in one piece from its source, and is released at once."""

    def __init__(self) -> None:
        self._ready: deque[Batch] = deque()

    def join(self, source: Hashable) -> None:
        """A source is attached."""

    def leave(self, source: Hashable) -> None:
        """It is not any more; what it sent counts."""

    def complete(self, source: Hashable, wall_ns: int) -> None:
        """Times mean nothing here."""

    def add(self, batch: Batch, now_ns: int) -> None:
        """A recording, or those of its rows that are wanted."""
        if len(batch):
            order = np.argsort(batch.raw("number"), kind="stable")
            self._ready.append(batch.select(order))

    def release(self, now_ns: int) -> Rows:
        """The next recording."""
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
