"""Rows of several batches in one order.

A merge of a thousand nodes takes a row here and a row there. Rows keeps the batches, joins them when columns are read,
so that this is done in bulk, and holds the order of their rows. `order` indexes the concatenation of all
parts, so results per part must be concatenated in the order of the parts before rows are picked.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import groupby
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.rows.batch import Batch, join
from kubectl_gadget.rows.vectors import Integers

T = TypeVar("T")


class Rows:
    """Ordered rows. `parts` hold exactly these rows; `order` is None if they are already in order."""

    is_block = False
    """the rows are a whole interval, snapshot or capture, and are shown as one table, even if there are none"""
    is_rest = False
    """the rows are of an interval that was cut short by the end of the run"""

    def __init__(self, parts: Sequence[Batch], order: Integers | None = None) -> None:
        self.parts = [part for part in parts if len(part)]
        self.order = order

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def everything(self) -> "Rows":
        """Return the same rows together with the rows of the block that --max-rows leaves out."""
        return self

    def chunks(self, count: int) -> "Iterator[Rows]":
        """The same rows in pieces of at most `count`, each with bytes of its own: texts are made of all bytes."""
        if len(self) <= count:
            yield self
            return
        self.parts, self.order = self.joined  # frees the bytes of parts that were not joined
        for start in range(0, len(self), count):
            piece = self.take(np.arange(start, min(start + count, len(self))))
            yield Rows([part.compacted() for part in piece.parts], piece.order)

    def collect(self, read: Callable[[Batch], Sequence[T]]) -> list[T]:
        """The results of `read` for each batch, one element per row, in the order of the rows."""
        batches, order = self.joined
        if len(batches) == 1 and order is None:
            return list(read(batches[0]))
        values: list[T] = [value for batch in batches for value in read(batch)]
        return values if order is None else list(map(values.__getitem__, order.tolist()))

    def mask(self, test: Callable[[Batch], npt.NDArray[np.bool_]]) -> npt.NDArray[np.bool_]:
        """The results of `test`, such as Filter.mask, for each row, in the order of the rows."""
        batches, order = self.joined
        if not batches:
            return np.zeros(0, np.bool_)
        answers = np.concatenate([test(batch) for batch in batches])
        return answers if order is None else answers[order]

    def matching(self, test: Callable[[Batch], npt.NDArray[np.bool_]]) -> "Rows":
        """Return the rows for which `test` is true, in the same order."""
        mask = self.mask(test)
        return self if bool(mask.all()) else self.take(np.flatnonzero(mask))

    @cached_property
    def joined(self) -> tuple[list[Batch], Integers | None]:
        """The parts, with adjacent ones of one gadget and architecture joined, and the order of their rows."""
        groups = groupby(self.parts, key=lambda part: (part.gadget.name, part.architecture))
        batches = [join(list(parts)) for _, parts in groups]
        if len(batches) == 1 and self.order is not None:
            return [batches[0].select(self.order)], None
        return batches, self.order

    def head(self, count: int) -> "Rows":
        """The first `count` rows."""
        return self if count >= len(self) else self.take(np.arange(count))

    def take(self, positions: Integers) -> "Rows":
        """The rows at these positions of the order, in the given sequence."""
        chosen = positions if self.order is None else self.order[positions]
        ends = np.cumsum([len(part) for part in self.parts])
        owners = np.searchsorted(ends, chosen, side="right")
        grouped = np.argsort(owners, kind="stable")
        bounds = np.searchsorted(owners[grouped], np.arange(len(self.parts) + 1))
        parts = []
        for number, part in enumerate(self.parts):
            rows = chosen[grouped[bounds[number] : bounds[number + 1]]]
            if len(rows):
                parts.append(part.select(rows - (ends[number] - len(part))))
        order = np.empty(len(chosen), np.intp)
        order[grouped] = np.arange(len(chosen))
        return Rows(parts, None if bool((order[1:] > order[:-1]).all()) else order)


NO_ROWS = Rows([])


# The interfaces of the steps between decoding and output. A `Collector` decides when rows are released and in
# which order: by time (merge.TimeMerge), as the blocks of an interval or a snapshot (tables.Intervals), one
# recorded call sequence at a time (tables.Captures). A `Transform` turns the rows of several gadgets into other
# records: a story of processes (observe), flows. A source is one gadget on one node. A collector has no clock:
# arrival times are passed in, so that a replay gives the same rows as the recorded run.


T_co = TypeVar("T_co", covariant=True)


class Collector(ABC):
    """Holds rows back until they may be released. All calls come from one thread; what is not defined in a subclass
    does not matter there."""

    late = 0
    """number of rows that arrived after a younger row had been released"""

    def expect(self, source: Hashable, wall_ns: int) -> None:  # noqa: B027
        """Announces a source that will send no rows older than `wall_ns`. Called before rows are requested from it."""

    def join(self, source: Hashable) -> None:  # noqa: B027
        """The source has started."""

    def leave(self, source: Hashable) -> None:  # noqa: B027
        """The source sends nothing more. Rows that it has sent are kept."""

    @abstractmethod
    def add(self, batch: Batch, now_ns: int) -> None:
        """Takes rows that arrived at `now_ns`."""

    def complete(self, source: Hashable, wall_ns: int) -> None:  # noqa: B027
        """All rows of the source before this wall time have been added."""

    def end(self, source: Hashable, now_ns: int, is_rest: bool) -> None:  # noqa: B027
        """The source's answer (an interval, a snapshot) is complete. `is_rest`: the run ended before it did."""

    @abstractmethod
    def release(self, now_ns: int) -> Rows:
        """Rows that may be released now. Call it until it returns NO_ROWS."""

    @abstractmethod
    def flush(self) -> Rows:
        """Rows that remain at the end of the run. Call it until it returns NO_ROWS."""

    @abstractmethod
    def next_release_ns(self) -> int | None:
        """The latest time for the next call of release; None if no rows are waiting."""


class Transform(Protocol[T_co]):
    """Turns rows, which come in order of time, into other records."""

    def apply(self, rows: Rows) -> T_co:
        """The records of these rows, in the same order."""


class RowTransform(Transform[Rows], Protocol):
    """A transform that returns rows, so filters, conditions and all formats apply to its results."""

    @property
    def gadget(self) -> Gadget:
        """Describes the resulting rows."""

    def notes(self) -> Iterable[str]:
        """Messages to report at the end of the run."""
