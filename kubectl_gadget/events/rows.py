"""Rows of several batches in one order.

A merge of a thousand nodes takes a row here and a row there. Rows keeps their batches, joins them when columns are
read, so that this is done in bulk, and says in which order their rows come. The trap: `order` counts through the
parts one after the other, so whatever is made per part must be put together in the parts' order before it is picked.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from kubectl_gadget.events.batch import Batch, join

T = TypeVar("T")


class Rows:
    """Rows in order. `parts` hold exactly the rows; `order` is None when they come as they stand."""

    is_block = False
    """they are all of an interval, a snapshot or a capture, and are shown as one table, also where there are none"""
    is_rest = False
    """of an interval that the end of the run has cut short"""

    def __init__(self, parts: Sequence[Batch], order: npt.NDArray[np.integer[Any]] | None = None) -> None:
        self.parts = [part for part in parts if len(part)]
        self.order = order

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def everything(self) -> "Rows":
        """With the rows of a block that --max-rows leaves out."""
        return self

    def chunks(self, count: int) -> "Iterator[Rows]":
        """The same rows, in pieces of at most `count`."""
        batches, order = self._joined
        if len(self) <= count:
            yield self
            return
        joined = Rows(batches, order)
        for start in range(0, len(self), count):
            yield joined.take(np.arange(start, min(start + count, len(self))))

    def collect(self, read: Callable[[Batch], Sequence[T]]) -> list[T]:
        """What `read` makes of each batch, one element per row, in the order of the rows."""
        batches, order = self._joined
        if len(batches) == 1 and order is None:
            return list(read(batches[0]))
        values: list[T] = [value for batch in batches for value in read(batch)]
        return values if order is None else list(map(values.__getitem__, order.tolist()))

    def mask(self, test: Callable[[Batch], npt.NDArray[np.bool_]]) -> npt.NDArray[np.bool_]:
        """What `test`, such as Filter.mask, says of each row, in the order of the rows."""
        batches, order = self._joined
        if not batches:
            return np.zeros(0, np.bool_)
        answers = np.concatenate([test(batch) for batch in batches])
        return answers if order is None else answers[order]

    @cached_property
    def _joined(self) -> tuple[list[Batch], npt.NDArray[np.integer[Any]] | None]:
        """The parts, neighbours of one gadget and architecture being one batch, and the order of their rows."""
        groups = groupby(self.parts, key=lambda part: (part.gadget.name, part.architecture))
        batches = [join(list(parts)) for _, parts in groups]
        if len(batches) == 1 and self.order is not None:
            return [batches[0].select(self.order)], None
        return batches, self.order

    def head(self, count: int) -> "Rows":
        """The first `count` rows."""
        return self if count >= len(self) else self.take(np.arange(count))

    def take(self, positions: npt.NDArray[np.integer[Any]]) -> "Rows":
        """The rows at these positions of the order, in that order."""
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
