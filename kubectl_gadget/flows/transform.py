"""Makes flows of the rows of the network gadgets. A Transform of rows/rows.py.

The trap: late rows are older than all others of a chunk, and their flows may have been shown already; so they are added
first, and the events that they make are marked as late.
"""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from kubectl_gadget.flows.ends import GADGETS, FlowEnd
from kubectl_gadget.flows.filter import FlowFilter
from kubectl_gadget.flows.flow import FlowEvent
from kubectl_gadget.flows.flow_events import FlowEvents
from kubectl_gadget.flows.joiner import COLUMNS, FlowTable, Row
from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.vectors import Mask

LEAST_ROWS = 256
"""With fewer rows, columns cost more than single rows."""


class FlowTransform:
    """Returns the events of flows that pass the filter."""

    def __init__(self, table: FlowTable, flow_filter: FlowFilter, in_columns: bool = False) -> None:
        """`in_columns`: the receiver of the events reads columns; otherwise they are not made."""
        self._in_columns = in_columns and not flow_filter.looks_at_events
        self._table = table
        self._filter = flow_filter
        self._members = MemberRows(COLUMNS, event=True)

    def apply(self, rows: Rows) -> Sequence[FlowEvent]:
        return self._filter.select(self._add(rows))

    def _add(self, rows: Rows) -> Sequence[FlowEvent]:
        if self._in_columns and len(rows) >= LEAST_ROWS and (joined := self._join(*rows.joined)) is not None:
            return joined
        items = rows.collect(self._read)
        if all(part.late is None for part in rows.parts):
            return self._table.add_all(items)
        count = int(rows.mask(_late).sum())
        late = [event._replace(late=True) for event in self._table.add_all(items[:count])]
        return late + self._table.add_all(items[count:])

    def _join(self, batches: Sequence[Batch], order: npt.NDArray[np.integer[Any]] | None) -> FlowEvents | None:
        """Joins connections in columns, and adds all other rows in between. None: no row can be joined in columns."""
        connections = [batch for batch in batches if batch.gadget.name == "trace_tcp"]
        if len(connections) != 1 or any(batch.late is not None for batch in batches):
            return None
        positions = np.arange(sum(map(len, batches)))
        if order is not None:
            positions[order] = positions.copy()
        starts = np.cumsum([0, *map(len, batches)])
        others, batch, at = list[tuple[int, FlowEnd | Row]](), connections[0], positions
        for part, start in zip(batches, starts, strict=False):
            of_part = positions[start : start + len(part)]
            if part is batch:
                at = of_part
            else:
                others += zip(of_part.tolist(), self._read(part), strict=True)
        if (at[1:] < at[:-1]).any():
            sorted_rows = np.argsort(at)
            batch, at = batch.select(sorted_rows), at[sorted_rows]
        chosen = self._table.choose(batch, at, [row for _, row in others])
        if chosen is None:
            return None
        if not chosen.rows.all():
            others += zip(at[~chosen.rows].tolist(), self._read(batch.select(~chosen.rows)), strict=True)
        others.sort(key=itemgetter(0))
        return FlowEvents(self._table.plain, chosen.events, self._table.add_between(others, chosen.changes))

    def _read(self, batch: Batch) -> Sequence[FlowEnd | Row]:
        return self._table.ends.read(batch) if batch.gadget.name in GADGETS else self._members.records_of(batch)


def _late(batch: Batch) -> Mask:
    return np.zeros(len(batch), np.bool_) if batch.late is None else batch.late
