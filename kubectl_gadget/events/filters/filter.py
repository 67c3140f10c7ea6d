"""Filters: CEL over the names and values that JSON rows have (`comm == "nginx" && fd > 2`).

The parts that `&&` joins are compiled one by one. What column_expressions.py knows works on whole columns; the rest is
given to cel-python, row by row, and only for the rows that all other parts let through. A row whose evaluation ends in
an error does not match, as `null.startsWith("x")`. The traps: such errors are counted, since a filter that can never
match looks the same as a quiet system; and a program that takes its memory away before it is read must not get past a
filter by that, so a filter that is undecided for lack of what could not be read lets the row through (`select`).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kubectl_gadget.errors import UsageError
from kubectl_gadget.events.batch import Batch
from kubectl_gadget.events.columns.kind import Member
from kubectl_gadget.events.columns.members import filter_members, unread_members
from kubectl_gadget.events.filters import cel
from kubectl_gadget.events.filters.cel_check import check, column_shapes
from kubectl_gadget.events.filters.cel_logic import ThreeValued, any_mask
from kubectl_gadget.events.filters.column_expressions import NotVectorised, compile_condition
from kubectl_gadget.events.filters.pushdown import kernel_parameters
from kubectl_gadget.events.schema import Gadget
from kubectl_gadget.events.vectors import Mask

__all__ = ["Filter", "compile_filter", "kernel_parameters"]

_LONGEST_REASON = 200
"""Characters of what cel-python says of an error: it likes to print all that it knows."""


def cel_functions() -> dict[str, Any]:
    """Functions in which cel-python differs from the CEL specification: its size(null) is 0, not an error."""
    from celpy.evaluation import CELEvalError, base_functions

    def size(value: Any) -> Any:
        if value is None:
            return CELEvalError("no such overload", TypeError, ("size(null)",))
        return base_functions["size"](value)

    return {"size": size}


class RowProgram:
    """An expression that cel-python evaluates row by row. `errors` counts the `rows` that ended in one, which do not
    match; `first_error` says what it was."""

    def __init__(self, tree: cel.Tree) -> None:
        import celpy
        from celpy.adapter import json_to_cel

        self.rows = self.errors = 0
        self.first_error: str | None = None
        environment = celpy.Environment()
        self._convert = json_to_cel
        self._program = environment.program(cel.evaluable(tree), functions=cel_functions())

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether it is true of a row's members, as JSON has them."""
        self.rows += 1
        try:
            result = self._program.evaluate({name: self._convert(value) for name, value in row.items()})
        except Exception as error:
            # Whatever cel-python raises on a row's values is this row's error; it is counted and reported.
            self._count(str(error.args[0] if error.args else error))
            return False
        if result not in (True, False):
            self._count(f"the result is {result!r}, neither true nor false")
            return False
        return bool(result)

    def _count(self, why: str) -> None:
        self.errors += 1
        if self.first_error is None:
            line = why.partition("\n")[0]
            self.first_error = line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]}…"


class _RowByRow:
    """A part of a filter of columns that cel-python evaluates."""

    def __init__(self, tree: cel.Tree, members: Mapping[str, Member]) -> None:
        self.program = RowProgram(tree)
        self._members = [member for name, member in members.items() if name in _names(tree)]

    def mask(self, batch: Batch) -> Mask:
        """Where the part is true."""
        names = [member.name for member in self._members]
        columns = [batch.vector(member.name, member.read).values() for member in self._members]
        rows = zip(*columns, strict=True) if columns else iter([()] * len(batch))
        matches = self.program.matches
        return np.fromiter((matches(dict(zip(names, row, strict=True))) for row in rows), np.bool_, len(batch))


def _names(tree: cel.Tree) -> set[str]:
    return {token.value for token in cel.identifiers(tree)}


class _Cautious:
    """The same parts, of which none is false for what could not be read."""

    def __init__(
        self, parts: Sequence[cel.Tree], members: Mapping[str, Member], elsewhere: Mapping[str, Member], gadget: Gadget
    ) -> None:
        unread = unread_members(gadget)
        self._parts = [(part, [mask for name, mask in unread.items() if name in _names(part)]) for part in parts]
        self._members, self._elsewhere, self._masks = members, elsewhere, unread

    def rows(self, batch: Batch) -> npt.NDArray[np.intp]:
        """Where something could not be read that the filter asks for."""
        return np.flatnonzero(any_mask((mask(batch) for _, unread in self._parts for mask in unread), batch))

    def mask(self, batch: Batch) -> Mask:
        """Where no part is false, as far as it is known."""
        mask = np.ones(len(batch), np.bool_)
        for part, unread in self._parts:
            undecided = any_mask((of_member(batch) for of_member in unread), batch)
            try:
                found = compile_condition(part, self._members, self._elsewhere, self._masks)(batch)
                mask &= found.yes | (undecided & ~found.false())
            except NotVectorised:
                # Only cel-python knows this part, and it has no third answer for what could not be read.
                mask &= undecided
        return mask


class _Compiled:
    """The parts of a filter for one gadget."""

    def __init__(
        self, parts: Sequence[cel.Tree], members: Mapping[str, Member], elsewhere: Mapping[str, Member], gadget: Gadget
    ) -> None:
        self.cautious = _Cautious(parts, members, elsewhere, gadget)
        self.columns: list[Callable[[Batch], ThreeValued]] = []
        self.rows: list[_RowByRow] = []
        for part in parts:
            try:
                self.columns.append(compile_condition(part, members, elsewhere))
            except NotVectorised:
                self.rows.append(_RowByRow(part, members))

    def mask(self, batch: Batch) -> Mask:
        mask = np.ones(len(batch), np.bool_)
        for condition in self.columns:
            mask &= condition(batch).yes
        for part in self.rows:
            rows = np.flatnonzero(mask)
            if len(rows):
                mask[rows] = part.mask(batch.select(rows))
        return mask


class Filter:
    """A compiled expression. `parts` are those of its parts that count, which `&&` joins; None: all."""

    def __init__(
        self, text: str, tree: cel.Tree, gadgets: Sequence[Gadget], parts: Sequence[cel.Tree] | None = None
    ) -> None:
        self.text = text
        self.tree = tree
        self._gadgets = gadgets
        members = {gadget.name: filter_members(gadget) for gadget in gadgets}
        everything = {name: member for known in members.values() for name, member in known.items()}
        headings = {column.title.lower(): column.name for gadget in gadgets for column in gadget.columns}
        for known in members.values():
            shapes = column_shapes({name: member.type for name, member in known.items()}, everything)
            check(text, tree, shapes, headings)
        chosen = cel.conjuncts(tree) if parts is None else parts
        self._compiled = {
            gadget.name: _Compiled(chosen, members[gadget.name], everything, gadget) for gadget in gadgets
        }

    def divided(self, names: Collection[str]) -> "tuple[Filter | None, Filter | None]":
        """Those parts that name none of `names`, and those that do; None where there are no such parts."""
        parts = cel.conjuncts(self.tree)
        of_names = [part for part in parts if not _names(part).isdisjoint(names)]
        others = [part for part in parts if not any(part is other for other in of_names)]
        first, second = (
            Filter(self.text, self.tree, self._gadgets, found) if found else None for found in (others, of_names)
        )
        return first, second

    @property
    def vectorised(self) -> bool:
        """Whether no part has to be evaluated row by row."""
        return not any(compiled.rows for compiled in self._compiled.values())

    @property
    def errors(self) -> int:
        """Rows that cel-python could not decide; they did not match."""
        return sum(part.program.errors for compiled in self._compiled.values() for part in compiled.rows)

    @property
    def first_error(self) -> str | None:
        """What the first of them was."""
        found = [part.program.first_error for compiled in self._compiled.values() for part in compiled.rows]
        return next((error for error in found if error is not None), None)

    def mask(self, batch: Batch) -> Mask:
        """Which rows match. The batch is of one of the filter's gadgets."""
        return self._compiled[batch.gadget.name].mask(batch)

    def select(self, batch: Batch) -> Batch:
        """The rows that match, and those of which it cannot be known since something could not be read; the batch
        itself when all do."""
        compiled = self._compiled[batch.gadget.name]
        mask = compiled.mask(batch)
        unread = compiled.cautious.rows(batch)
        if len(unread):
            mask[unread] |= compiled.cautious.mask(batch.select(unread))
        return batch if bool(mask.all()) else batch.select(mask)


def compile_filter(expression: str, gadgets: Sequence[Gadget]) -> Filter:
    """A filter for rows of these gadgets.

    Raises UsageError, with the place in the expression, when it does not parse, when it names a column that no gadget
    has, and when functions, arguments or types do not fit as far as that can be known before there are rows.
    """
    try:
        return Filter(expression, cel.parse(expression), gadgets)
    except RecursionError:
        raise UsageError("filter: the expression is nested too deeply") from None
