"""Formats rows as table cells, as JSON lines and as JSON objects: by column first, then combined into rows.

JSON lines use one %-template per batch (joined_columns.py), and every value is already JSON text when it is inserted.
The template is made per batch, so a value that only some rows have must bring its own comma.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.output.columns import EVENT, JoinedColumns, details, member_names
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.kinds import Member
from kubectl_gadget.rows.members import filter_members, find_column, owner_texts, shown
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.vectors import json_texts

LATE = "late"
"""The member that marks rows that arrived after a younger row had been written."""


class MemberRows:
    """Converts rows to JSON. `columns` limits it to the members of these columns; `event` adds the gadget's name."""

    def __init__(self, columns: Sequence[str] = (), event: bool = False) -> None:
        self.columns = tuple(columns)
        self.event = event
        self._members: dict[str, list[Member]] = {}

    def lines(self, rows: Rows) -> list[str]:
        """One JSON object per row, without the newline."""
        return rows.collect(self._lines)

    def records(self, rows: Rows) -> list[dict[str, Any]]:
        return rows.collect(self.records_of)

    def members(self, batch: Batch) -> list[Member]:
        """The members of rows of this batch's gadget."""
        name = batch.gadget.name
        if name not in self._members:
            known = filter_members(batch.gadget)
            self._members[name] = [known[member] for member in member_names(batch.gadget, self.columns)]
        return self._members[name]

    def _lines(self, batch: Batch) -> list[str]:
        joined, comma = JoinedColumns(len(batch)), ""
        joined.text("{")
        if self.event:
            joined.text(f'"{EVENT}":{json_texts([batch.gadget.event])[0]}')
            comma = ","
        for member in self.members(batch):
            vector = batch.vector(member.name, member.read)
            if member.optional and vector.absent():
                continue
            found = vector.few()
            piece, values = ("", ()) if found else vector.json()
            if member.optional:
                codes, texts = found or (None, list(map(piece.__mod__, zip(*values, strict=True))))
                texts = [f',"{member.name}":{text}' if text not in ("null", "false") else "" for text in texts]
                joined.each("%s", [texts]) if codes is None else joined.few(codes, texts)
                continue
            joined.text(f'{comma}"{member.name}":')
            comma = ","
            joined.few(*found) if found else joined.each(piece, values)
        if batch.late is not None:
            joined.few(batch.late.astype(np.intp), ("", f',"{LATE}":true'))
        joined.text("}")
        return joined.rows()

    def records_of(self, batch: Batch) -> list[dict[str, object]]:
        """The rows of one batch as Python objects."""
        members = self.members(batch)
        names = [member.name for member in members]
        columns = [batch.vector(member.name, member.read).values() for member in members]
        if self.event:
            names, columns = [EVENT, *names], [[batch.gadget.event] * len(batch), *columns]
        found = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        for member in members:
            if member.optional:
                for record in found:
                    if record[member.name] in (None, False):
                        del record[member.name]
        if batch.late is not None:
            for record, late in zip(found, batch.late.tolist(), strict=True):
                record.update({LATE: True} if late else {})
        return found


def cells(rows: Rows, name: str) -> list[str]:
    """One column of a table, not escaped yet; empty for rows of gadgets that do not have the column."""

    def read(batch: Batch) -> list[str]:
        if name == EVENT:
            return [batch.gadget.event] * len(batch)
        column = find_column(batch.gadget, name)
        return [""] * len(batch) if column is None else shown(batch, column)

    return rows.collect(read)


def detail_cells(rows: Rows, gadgets: Sequence[Gadget]) -> list[str]:
    """DETAILS: `fd=3 err=0 path=/etc/hosts`, the columns of a single gadget in a table of several gadgets."""

    def read(batch: Batch) -> list[str]:
        own = details(batch.gadget, gadgets)
        texts = [shown(batch, column) for column in own]
        template = " ".join(f"{column.title.lower()}=%s" for column in own)
        return list(map(template.__mod__, zip(*texts, strict=True))) if own else [""] * len(batch)

    return rows.collect(read)


def pod_keys(rows: Rows) -> list[str]:
    """Keys of the rows' pods: namespace and name; empty for rows outside of pods."""

    def read(batch: Batch) -> list[str]:
        if batch.owners is None:
            return [""] * len(batch)
        keys = [f"{owner.namespace}/{owner.pod}" if owner.pod else "" for owner in batch.owners.containers]
        return [keys[code] for code in batch.owners.codes.tolist()]

    return rows.collect(read)


def object_names(rows: Rows) -> list[str]:
    """The object of each row, named as in kubectl: pod/NAME, container/NAME without a pod, node/NAME."""

    def read(batch: Batch) -> list[str]:
        nodes = [f"node/{node}" for node in owner_texts(batch, "node").values()]
        if batch.owners is None:
            return nodes
        names = [
            f"pod/{owner.pod}" if owner.pod else f"container/{owner.container}" if owner.container else ""
            for owner in batch.owners.containers
        ]
        return [names[code] or node for code, node in zip(batch.owners.codes.tolist(), nodes, strict=True)]

    return rows.collect(read)
