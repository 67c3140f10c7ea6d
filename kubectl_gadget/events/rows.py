"""Rows of several batches in one order.

A merge of a thousand nodes takes a row here and a row there. Rows keeps the batches whole, so that columns are still
read in bulk, and says in which order their rows come. The trap: `order` counts through the parts one after the other,
so whatever is made per part must be put together in the parts' order before it is picked.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from kubectl_gadget.events.batch import Batch

T = TypeVar("T")


class Rows:
    """Rows in order. `parts` hold exactly the rows; `order` is None when they come as they stand."""

    def __init__(self, parts: Sequence[Batch], order: npt.NDArray[np.integer[Any]] | None = None) -> None:
        self.parts = [part for part in parts if len(part)]
        self.order = order

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def collect(self, read: Callable[[Batch], Sequence[T]]) -> list[T]:
        """What `read` makes of each part, one element per row, in the order of the rows."""
        if len(self.parts) == 1 and self.order is None:
            return list(read(self.parts[0]))
        values: list[T] = [value for part in self.parts for value in read(part)]
        return values if self.order is None else list(map(values.__getitem__, self.order.tolist()))

    def mask(self, test: Callable[[Batch], npt.NDArray[np.bool_]]) -> npt.NDArray[np.bool_]:
        """What `test`, such as Filter.mask, says of each row, in the order of the rows."""
        if not self.parts:
            return np.zeros(0, np.bool_)
        joined = np.concatenate([test(part) for part in self.parts])
        return joined if self.order is None else joined[self.order]

    def head(self, count: int) -> "Rows":
        """The first `count` rows."""
        if count >= len(self):
            return self
        return self.take(np.arange(count))

    def take(self, positions: npt.NDArray[np.integer[Any]]) -> "Rows":
        """The rows at these positions of the order, in that order."""
        chosen = positions if self.order is None else self.order[positions]
        ends = np.cumsum([len(part) for part in self.parts])
        owners = np.searchsorted(ends, chosen, side="right")
        grouped = np.argsort(owners, kind="stable")
        parts = []
        for number, part in enumerate(self.parts):
            rows = chosen[owners == number] - (ends[number] - len(part))
            if len(rows):
                parts.append(part.select(rows))
        order = np.empty(len(chosen), np.intp)
        order[grouped] = np.arange(len(chosen))
        return Rows(parts, None if bool((grouped[1:] > grouped[:-1]).all()) else order)


NO_ROWS = Rows([])
