"""Rows of a batch as sources of recorded calls read them (policies/recorded/hook_sources.py).

The trap: a value that is null or cut in a row is not known here, whatever the call had, so it raises Undecided.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from kubectl_gadget.events.batch import Batch
from kubectl_gadget.events.columns.members import filter_members, member_values
from kubectl_gadget.events.columns.syscall_columns import cut_arguments, read_arguments
from kubectl_gadget.policies.decisions.calls import ArgumentValue, Undecided


class BatchRow:
    """One row of a batch, as sources read it (policies/recorded/hook_sources.py)."""

    def __init__(self, columns: "Columns", row: int) -> None:
        self._columns = columns
        self._row = row

    def __getitem__(self, member: str) -> Any:
        found = self._columns.members(member)[self._row]
        if found is None:
            raise Undecided(f"{member} is not in the row")
        return found

    def number(self, field: str) -> int:
        return int(self._columns.fields(field)[self._row])

    def argument(self, position: int) -> ArgumentValue:
        numbers, texts = self._columns.arguments[self._row]
        text = texts[position]
        if text is None:
            return numbers[position]
        if self._columns.cut[self._row][position]:
            raise Undecided("the rest of a text that is cut")
        return text.partition(b"\0")[0].decode("utf-8", "surrogateescape")


class Columns:
    """The columns of a batch, read when a row is asked for them."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self._members: dict[str, list[Any]] = {}
        self._fields: dict[str, list[Any]] = {}

    def members(self, name: str) -> list[Any]:
        if name not in self._members:
            values = member_values(self.batch, name)
            if f"{name}_cut" in filter_members(self.batch.gadget):
                cut = member_values(self.batch, f"{name}_cut")
                values = [None if is_cut else value for value, is_cut in zip(values, cut, strict=True)]
            self._members[name] = values
        return self._members[name]

    def fields(self, name: str) -> list[Any]:
        if name not in self._fields:
            self._fields[name] = self.batch.raw(name).tolist()
        return self._fields[name]

    @cached_property
    def arguments(self) -> list[tuple[Sequence[int], Sequence[bytes | None]]]:
        return read_arguments(self.batch, self.batch.gadget.record.field("arguments"))

    @cached_property
    def cut(self) -> list[Sequence[bool]]:
        """For each row and argument of a call, whether its data was cut."""
        return cut_arguments(self.batch, self.batch.gadget.record.field("arguments"))
