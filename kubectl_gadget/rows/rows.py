"""Rows of several batches in one order.

A merge of a thousand nodes takes a row here and a row there. Rows keeps the batches, joins them when columns are read,
so that this is done in bulk, and holds the order of their rows. The trap: `order` indexes the concatenation of all
parts, so results per part must be concatenated in the order of the parts before rows are picked.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from kubectl_gadget.rows.batch import Batch, join

T = TypeVar("T")


class Rows:
    """Ordered rows. `parts` hold exactly these rows; `order` is None if they are already in order."""

    is_block = False
    """the rows are a whole interval, snapshot or capture, and are shown as one table, even if there are none"""
    is_rest = False
    """the rows are of an interval that was cut short by the end of the run"""

    def __init__(self, parts: Sequence[Batch], order: npt.NDArray[np.integer[Any]] | None = None) -> None:
        self.parts = [part for part in parts if len(part)]
        self.order = order

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def everything(self) -> "Rows":
        """The same rows together with those of the block that --max-rows leaves out."""
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
    def joined(self) -> tuple[list[Batch], npt.NDArray[np.integer[Any]] | None]:
        """The parts, with adjacent ones of one gadget and architecture joined, and the order of their rows."""
        groups = groupby(self.parts, key=lambda part: (part.gadget.name, part.architecture))
        batches = [join(list(parts)) for _, parts in groups]
        if len(batches) == 1 and self.order is not None:
            return [batches[0].select(self.order)], None
        return batches, self.order

    def head(self, count: int) -> "Rows":
        """The first `count` rows."""
        return self if count >= len(self) else self.take(np.arange(count))

    def take(self, positions: npt.NDArray[np.integer[Any]]) -> "Rows":
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
