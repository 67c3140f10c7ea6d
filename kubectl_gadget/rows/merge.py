"""Merges the rows of many nodes by wall time, within a bounded wait.

A row is released when every source (one gadget on one node) has reported that it is complete past the row's time, and
at the latest `wait_ns` after its batch arrived, whatever its clock says. A row that arrives after a younger row has
been released is marked as late. Arrival times are passed in and only compared with each other. A node whose
clock is ahead must not hold its own rows back, so the wait counts from arrival and not from the row's time. And a
source must be joined before rows are requested from it: rows of other sources released before that are older than all
that it will send.
"""

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.rows import NO_ROWS, Collector, Rows


@dataclass
class _HeldBatch:
    """A batch sorted by time; the rows before `position` have been released."""

    batch: Batch
    times: npt.NDArray[np.int64]
    order: npt.NDArray[np.intp] | None
    """None: the batch itself is sorted"""
    arrived_ns: int
    position: int = 0

    def upto(self, limit: int) -> "tuple[Batch, npt.NDArray[np.int64]] | None":
        """Releases the rows up to this time, and returns them with their times; None: there are none."""
        end = int(np.searchsorted(self.times, limit, side="right"))
        if end <= self.position:
            return None
        start, self.position = self.position, end
        times = self.times[start:end]
        whole = self.order is None and start == 0 and end == len(self.times)
        released = self.batch if whole else self._rows(start, end)
        if 0 < len(self.times) - end <= _SMALL_REST * len(self.times):
            self._keep_rest()
        return released, times

    def _rows(self, start: int, end: int) -> Batch:
        return self.batch.select(np.arange(start, end) if self.order is None else self.order[start:end])

    def _keep_rest(self) -> None:
        """Copies the rows that wait, so that they do not hold the bytes of the others."""
        self.batch = self._rows(self.position, len(self.times)).compacted()
        self.times, self.order, self.position = self.times[self.position :].copy(), None, 0


_SMALL_REST = 1 / 4
"""Rows that wait are copied when they are this part of their batch or less. So however often rows are released, fewer
are copied than a third of the batch."""
_FOREVER = 1 << 62


class TimeMerge(Collector):
    """Takes batches and returns rows in order of time. `sort=False` keeps the order of arrival.

    `late` counts the rows that are marked as late.
    """

    def __init__(self, wait_ns: int, sort: bool = True) -> None:
        self.wait_ns = wait_ns
        self.sort = sort
        self.late = 0
        self._waiting: list[_HeldBatch] = []
        self._complete: dict[Hashable, int] = {}
        self._released = -_FOREVER

    def __len__(self) -> int:
        return sum(len(entry.times) - entry.position for entry in self._waiting)

    def expect(self, source: Hashable, wall_ns: int) -> None:
        """Makes rows younger than `wall_ns` wait for this source, such as (node, gadget number)."""
        self._complete.setdefault(source, wall_ns)

    def join(self, source: Hashable) -> None:
        """Makes rows wait for this source; all of them if it was not expected."""
        self._complete.setdefault(source, -_FOREVER)

    def leave(self, source: Hashable) -> None:
        """The source sends nothing more; rows no longer wait for it."""
        self._complete.pop(source, None)

    def complete(self, source: Hashable, wall_ns: int) -> None:
        """Every row of this source before this wall time has been added (complete_until plus the clock's offset)."""
        if source in self._complete:
            self._complete[source] = max(self._complete[source], wall_ns)

    def end(self, source: Hashable, now_ns: int, is_rest: bool) -> None:
        """The source, a snapshot, has answered. Rows do not wait for the time when it is taken again."""
        self.leave(source)

    def add(self, batch: Batch, now_ns: int) -> None:
        """Takes a batch that arrived at `now_ns`; its rows need not be in order."""
        if not len(batch):
            return
        batch = batch.compacted()
        if not self.sort:
            self._waiting.append(_HeldBatch(batch, np.zeros(len(batch), np.int64), None, now_ns))
            return
        times = batch.wall_ns()
        order = None
        if (times[1:] < times[:-1]).any():
            order = np.argsort(times, kind="stable")
            times = times[order]
        if late := int(np.searchsorted(times, self._released, side="left")):
            self.late += late
            batch.late = (np.arange(len(times)) if order is None else np.argsort(order)) < late
        self._waiting.append(_HeldBatch(batch, times, order, now_ns))

    def release(self, now_ns: int) -> Rows:
        """The rows that may be released now."""
        return self._take(self._limit(now_ns)) if self._waiting else NO_ROWS

    def flush(self) -> Rows:
        """All remaining rows."""
        return self._take(_FOREVER)

    def next_release_ns(self) -> int | None:
        """The latest time for the next call of release; None if no rows are waiting."""
        return min(entry.arrived_ns for entry in self._waiting) + self.wait_ns if self._waiting else None

    def _limit(self, now_ns: int) -> int:
        if not self.sort or not self._complete:
            return _FOREVER
        limit = min(self._complete.values()) - 1
        for entry in self._waiting:
            if entry.arrived_ns + self.wait_ns <= now_ns:
                limit = max(limit, int(entry.times[-1]))
        return max(limit, self._released)

    def _take(self, limit: int) -> Rows:
        taken = [piece for entry in self._waiting if (piece := entry.upto(limit)) is not None]
        self._waiting = [entry for entry in self._waiting if entry.position < len(entry.times)]
        if not taken:
            return NO_ROWS
        # Adjacent batches of one gadget are joined for reading (rows.Rows.joined).
        if self.sort:
            taken.sort(key=lambda piece: (piece[0].gadget.name, piece[0].architecture))
        parts = [batch for batch, _ in taken]
        if not self.sort:
            return Rows(parts)
        times = np.concatenate([piece for _, piece in taken])
        self._released = max(self._released, int(times.max()))
        if not (times[1:] < times[:-1]).any():
            return Rows(parts)
        return Rows(parts, np.argsort(times, kind="stable"))
