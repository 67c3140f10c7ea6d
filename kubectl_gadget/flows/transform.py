"""Makes flows of the rows of the network gadgets. A Transform of rows/rows.py.

The trap: late rows are older than all others of a chunk, and their flows may have been shown already; so they are added
first, and the events that they make are marked as late.
"""

from collections.abc import Sequence

import numpy as np

from kubectl_gadget.flows.ends import GADGETS, FlowEnd
from kubectl_gadget.flows.filter import FlowFilter
from kubectl_gadget.flows.flow import FlowEvent
from kubectl_gadget.flows.joiner import COLUMNS, FlowTable, Row
from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.vectors import Mask


class FlowTransform:
    """Returns the events of flows that pass the filter."""

    def __init__(self, table: FlowTable, flow_filter: FlowFilter) -> None:
        self._table = table
        self._filter = flow_filter
        self._members = MemberRows(COLUMNS, event=True)

    def apply(self, rows: Rows) -> Sequence[FlowEvent]:
        return self._filter.select(self._add(rows))

    def _add(self, rows: Rows) -> Sequence[FlowEvent]:
        items = rows.collect(self._read)
        if all(part.late is None for part in rows.parts):
            return self._table.add_all(items)
        count = int(rows.mask(_late).sum())
        late = [event._replace(late=True) for event in self._table.add_all(items[:count])]
        return late + self._table.add_all(items[count:])

    def _read(self, batch: Batch) -> Sequence[FlowEnd | Row]:
        return self._table.ends.read(batch) if batch.gadget.name in GADGETS else self._members.records_of(batch)


def _late(batch: Batch) -> Mask:
    return np.zeros(len(batch), np.bool_) if batch.late is None else batch.late
