"""Where the rows of tables that are no streams wait: for all nodes' part of an interval, or of a snapshot.

An events.collector.Collector. Nodes count their intervals each for itself, so a block
holds what has come from all of them since the last block; what is late is in the next one, and nothing is left out. The
trap: a node that is slow or gone must hold up nobody, so a block waits for a share of the interval and no longer.
"""

from collections.abc import Hashable

from kubectl_gadget.events.batch import Batch
from kubectl_gadget.events.filters.filter import Filter
from kubectl_gadget.events.rows import NO_ROWS, Rows
from kubectl_gadget.views.tables.aggregation import Block, arrange, condense
from kubectl_gadget.views.tables.arrangement import Arrangement

_WAIT_SHARE = 0.4
_LEAST_WAIT_NS = 100_000_000
_MOST_BATCHES = 256
"""Those of a run that lasts are added up now and then, or it would take ever more memory."""


class Intervals:
    """Of one gadget. `once`: all is one answer, which flush() gives. `keep` chooses among rows that were added up."""

    late = 0
    """What is late is in the next block."""

    def __init__(self, arrangement: Arrangement, once: bool, keep: Filter | None = None) -> None:
        self._keep = keep
        self._arrangement = arrangement
        self._once = once
        self._wait_ns = max(int(arrangement.interval * _WAIT_SHARE * 1e9), _LEAST_WAIT_NS)
        self._batches: list[Batch] = []
        self._sources: set[Hashable] = set()
        self._ended: set[Hashable] = set()
        self._first_ended_ns: int | None = None
        self._cut_short: set[Hashable] = set()

    def expect(self, source: Hashable, wall_ns: int) -> None:
        """A source that has not started is not waited for."""

    def join(self, source: Hashable) -> None:
        """A source is attached."""
        self._sources.add(source)

    def leave(self, source: Hashable) -> None:
        """It is not any more; what it sent counts."""
        self._sources.discard(source)

    def complete(self, source: Hashable, wall_ns: int) -> None:
        """Times mean nothing here."""

    def add(self, batch: Batch, now_ns: int) -> None:
        """Rows of an interval that may not be whole yet."""
        if len(batch):
            self._batches.append(batch)
        if self._once and len(self._batches) >= _MOST_BATCHES:
            self._batches = condense(self._batches)

    def end(self, source: Hashable, now_ns: int, is_rest: bool = False) -> None:
        """A source's interval is whole; `is_rest`: as far as it came when the run was ended."""
        self._ended.add(source)
        if is_rest:
            self._cut_short.add(source)
        if self._first_ended_ns is None:
            self._first_ended_ns = now_ns

    def release(self, now_ns: int) -> Rows:
        """A block, when all sources have sent their part of it, or have been waited for."""
        if self._once or self._first_ended_ns is None:
            return NO_ROWS
        if not self._sources <= self._ended and now_ns < self._first_ended_ns + self._wait_ns:
            return NO_ROWS
        return self._block()

    def flush(self) -> Rows:
        """What is left."""
        if not self._batches and not (self._once and self._ended):
            return NO_ROWS
        block = self._block()
        block.is_rest = not self._once
        return block

    def next_release_ns(self) -> int | None:
        """When release has to be called at the latest; None when nothing waits."""
        return None if self._once or self._first_ended_ns is None else self._first_ended_ns + self._wait_ns

    def _block(self) -> Block:
        batches, self._batches = self._batches, []
        block = arrange(batches, self._arrangement, self._keep)
        # Nodes may leave a run that goes on.
        block.is_rest = bool(self._ended) and self._ended <= self._cut_short and not self._once
        self._ended.clear()
        self._cut_short.clear()
        self._first_ended_ns = None
        return block
