"""Collects the rows of an interval or a snapshot from all nodes, for tables that are not streams.

Each node counts its own intervals, so a block holds everything that has arrived from all
of them since the last block; late rows go into the next one, and none are dropped. The trap: a slow or lost node must
not hold up the others, so a block waits for a fraction of the interval and no longer.
"""

from collections.abc import Hashable
from typing import TYPE_CHECKING

from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.collector import Collector
from kubectl_gadget.rows.rows import NO_ROWS, Rows
from kubectl_gadget.rows.tables.aggregation import Block, arrange, condense
from kubectl_gadget.rows.tables.arrangement import Arrangement

if TYPE_CHECKING:  # needed only for a filter
    from kubectl_gadget.filters.filter import Filter

_WAIT_SHARE = 0.4
_LEAST_WAIT_NS = 100_000_000
_MOST_BATCHES = 256
"""Above this number, batches are aggregated, since the memory of a long run would grow without limit."""


class Intervals(Collector):
    """The intervals of one gadget. `once`: everything is one block, which flush() returns. `keep` filters aggregated
    rows."""

    def __init__(self, arrangement: Arrangement, once: bool, keep: "Filter | None" = None) -> None:
        self._keep = keep
        self._arrangement = arrangement
        self._once = once
        self._wait_ns = max(int(arrangement.interval * _WAIT_SHARE * 1e9), _LEAST_WAIT_NS)
        self._batches: list[Batch] = []
        self._sources: set[Hashable] = set()
        self._ended: set[Hashable] = set()
        self._first_ended_ns: int | None = None
        self._cut_short: set[Hashable] = set()

    def join(self, source: Hashable) -> None:
        self._sources.add(source)

    def leave(self, source: Hashable) -> None:
        """Removes a source; what it sent is kept."""
        self._sources.discard(source)

    def add(self, batch: Batch, now_ns: int) -> None:
        """Takes rows of an interval that may be incomplete."""
        if len(batch):
            self._batches.append(batch)
        if self._once and len(self._batches) >= _MOST_BATCHES:
            self._batches = condense(self._batches)

    def end(self, source: Hashable, now_ns: int, is_rest: bool = False) -> None:
        """A source's interval is complete; `is_rest`: it was cut short by the end of the run."""
        self._ended.add(source)
        if is_rest:
            self._cut_short.add(source)
        if self._first_ended_ns is None:
            self._first_ended_ns = now_ns

    def release(self, now_ns: int) -> Rows:
        """A block, once all sources have sent their part of it or the wait is over."""
        if self._once or self._first_ended_ns is None:
            return NO_ROWS
        if not self._sources <= self._ended and now_ns < self._first_ended_ns + self._wait_ns:
            return NO_ROWS
        return self._block()

    def flush(self) -> Rows:
        if not self._batches and not (self._once and self._ended):
            return NO_ROWS
        block = self._block()
        block.is_rest = not self._once
        return block

    def next_release_ns(self) -> int | None:
        return None if self._once or self._first_ended_ns is None else self._first_ended_ns + self._wait_ns

    def _block(self) -> Block:
        batches, self._batches = self._batches, []
        block = arrange(batches, self._arrangement, self._keep)
        # Nodes may leave a run that continues.
        block.is_rest = bool(self._ended) and self._ended <= self._cut_short and not self._once
        self._ended.clear()
        self._cut_short.clear()
        self._first_ended_ns = None
        return block
