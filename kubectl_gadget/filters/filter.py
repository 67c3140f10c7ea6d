"""Filters: CEL over the names and values of JSON rows (`comm == "nginx" && fd > 2`).

The parts joined by `&&` are compiled one by one. Parts that column_expressions.py supports work on whole columns;
cel-python evaluates the others row by row, and only for rows that pass all other parts. A row whose evaluation ends in
an error does not match, as `null.startsWith("x")`. The traps: such errors are counted, since a filter that can never
match looks the same as a quiet system; and a program must not get past a filter by unmapping its memory before it is
read, so `select` also passes rows for which the filter is undecided because a value could not be read.
"""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kubectl_gadget.errors import UsageError
from kubectl_gadget.filters import cel
from kubectl_gadget.filters.check import check, column_shapes
from kubectl_gadget.filters.column_expressions import NotVectorized, ThreeValued, any_mask, compile_condition
from kubectl_gadget.filters.plain_conditions import compile_plain
from kubectl_gadget.filters.pushdown import kernel_parameters
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.kinds import Member
from kubectl_gadget.rows.members import filter_members, unread_members
from kubectl_gadget.rows.vectors import Mask

__all__ = ["Filter", "compile_filter", "kernel_parameters"]

_LONGEST_REASON = 200
"""Maximum characters of an error message from cel-python, whose messages can be very long."""


def cel_functions() -> dict[str, Any]:
    """Replacements for functions in which cel-python differs from the CEL specification: size(null) must be an
    error."""
    from celpy.evaluation import CELEvalError, base_functions

    def size(value: object) -> object:
        if value is None:
            return CELEvalError("no such overload", TypeError, ("size(null)",))
        return base_functions["size"](value)

    return {"size": size}


class RowProgram:
    """An expression that is evaluated row by row, by cel-python if plain_conditions.py cannot. `errors` counts how many
    of the `rows` evaluated ended in an error, which do not match; `first_error` is the first message."""

    def __init__(self, tree: cel.Tree) -> None:
        import celpy
        from celpy.adapter import json_to_cel

        self.rows = self.errors = 0
        self.first_error: str | None = None
        self._plain = compile_plain(tree)
        environment = celpy.Environment()
        self._convert = json_to_cel
        self._program = environment.program(cel.evaluable(tree), functions=cel_functions())

    def matches(self, row: Mapping[str, Any]) -> bool:
        """True if the expression is true for a row's members, with values as in JSON."""
        self.rows += 1
        if self._plain is not None and (found := self._plain(row)) is not None:
            return found
        try:
            result = self._program.evaluate({name: self._convert(value) for name, value in row.items()})
        except Exception as error:
            # Any exception of cel-python for a row's values is an error of this row; it is counted and reported.
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
    """A part of a filter that cel-python evaluates row by row."""

    def __init__(self, tree: cel.Tree, members: Mapping[str, Member]) -> None:
        self.program = RowProgram(tree)
        self._members = [member for name, member in members.items() if name in _names(tree)]

    def mask(self, batch: Batch) -> Mask:
        """The mask of rows for which the part is true."""
        names = [member.name for member in self._members]
        columns = [batch.vector(member.name, member.read).values() for member in self._members]
        rows = zip(*columns, strict=True) if columns else iter([()] * len(batch))
        matches = self.program.matches
        return np.fromiter((matches(dict(zip(names, row, strict=True))) for row in rows), np.bool_, len(batch))


def _names(tree: cel.Tree) -> set[str]:
    return {token.value for token in cel.identifiers(tree)}


def _values_of(name: str, gadgets: Collection[Mapping[str, Member]]) -> frozenset[str]:
    """All values that this member has in some gadget; empty if it may be any text in one of them."""
    found = [members[name].names for members in gadgets if name in members]
    return frozenset(itertools.chain(*found)) if all(found) else frozenset()


class _Compiled:
    """The parts of a filter for one gadget."""

    def __init__(
        self,
        parts: Sequence[cel.Tree],
        members: Mapping[str, Member],
        elsewhere: Mapping[str, Member],
        gadget: Gadget,
    ) -> None:
        self._unread = unread_members(gadget)
        self._parts = [(part, [mask for name, mask in self._unread.items() if name in _names(part)]) for part in parts]
        self._members, self._elsewhere = members, elsewhere
        self.columns: list[Callable[[Batch], ThreeValued]] = []
        self.rows: list[_RowByRow] = []
        for part in parts:
            try:
                self.columns.append(compile_condition(part, members, elsewhere))
            except NotVectorized:
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

    def unread_rows(self, batch: Batch) -> npt.NDArray[np.intp]:
        """The rows in which a member that the filter uses could not be read."""
        return np.flatnonzero(any_mask((mask(batch) for _, unread in self._parts for mask in unread), batch))

    def mask_unless_false(self, batch: Batch) -> Mask:
        """The mask of rows for which no part is known to be false."""
        mask = np.ones(len(batch), np.bool_)
        for part, unread in self._parts:
            undecided = any_mask((of_member(batch) for of_member in unread), batch)
            try:
                found = compile_condition(part, self._members, self._elsewhere, self._unread)(batch)
                mask &= found.yes | (undecided & ~found.false())
            except NotVectorized:
                # Only cel-python can evaluate this part, and it has no third result for unreadable values.
                mask &= undecided
        return mask


class Filter:
    """A compiled expression. `parts` selects some of the parts joined by `&&`; None: all."""

    def __init__(
        self,
        text: str,
        tree: cel.Tree,
        gadgets: Sequence[Gadget],
        parts: Sequence[cel.Tree] | None = None,
    ) -> None:
        self.text = text
        self.tree = tree
        self._gadgets = gadgets
        members = {gadget.name: filter_members(gadget) for gadget in gadgets}
        everything = {name: member for known in members.values() for name, member in known.items()}
        names = {name: _values_of(name, members.values()) for name in everything}
        headings = {column.title.lower(): column.name for gadget in gadgets for column in gadget.columns}
        for known in members.values():
            types = {name: member.type for name, member in known.items() if "." not in name}
            shapes = column_shapes(types, (name for name in everything if "." not in name), names)
            shapes |= {name: member.shape for name, member in known.items() if member.shape is not None}
            check(text, tree, shapes, headings)
        chosen = cel.conjuncts(tree) if parts is None else parts
        self._compiled = {
            gadget.name: _Compiled(chosen, members[gadget.name], everything, gadget) for gadget in gadgets
        }

    def divided(self, names: Collection[str]) -> "tuple[Filter | None, Filter | None]":
        """Splits the filter into the parts that use none of `names` and the parts that do; None if there are no such
        parts."""
        parts = cel.conjuncts(self.tree)
        of_names = [part for part in parts if not _names(part).isdisjoint(names)]
        others = [part for part in parts if not any(part is other for other in of_names)]
        first, second = (
            Filter(self.text, self.tree, self._gadgets, found) if found else None for found in (others, of_names)
        )
        return first, second

    @property
    def errors(self) -> int:
        """Number of rows for which cel-python raised an error; they did not match."""
        return sum(part.program.errors for compiled in self._compiled.values() for part in compiled.rows)

    @property
    def first_error(self) -> str | None:
        found = [part.program.first_error for compiled in self._compiled.values() for part in compiled.rows]
        return next((error for error in found if error is not None), None)

    def mask(self, batch: Batch) -> Mask:
        """The mask of matching rows. The batch must be of one of the filter's gadgets."""
        return self._compiled[batch.gadget.name].mask(batch)

    def possible(self, batch: Batch) -> Mask:
        """Return the mask of rows that match, and of rows for which that is unknown because a value could not be
        read."""
        compiled = self._compiled[batch.gadget.name]
        mask = compiled.mask(batch)
        unread = compiled.unread_rows(batch)
        if len(unread):
            mask[unread] |= compiled.mask_unless_false(batch.select(unread))
        return mask

    def select(self, batch: Batch) -> Batch:
        """Return the possible rows: the batch itself if these are all of its rows."""
        mask = self.possible(batch)
        return batch if bool(mask.all()) else batch.select(mask)


def compile_filter(expression: str, gadgets: Sequence[Gadget], flag: str = "") -> Filter:
    """Compiles a filter for rows of these gadgets.

    Raises UsageError, with the flag that has the expression and the place in it, if it does not parse, if it names a
    column that no gadget has, or if functions, arguments or types do not fit, if that can be known before there
    are rows.
    """
    head = f"{flag}: " if flag else ""
    try:
        return Filter(expression, cel.parse(expression), gadgets)
    except RecursionError:
        raise UsageError(f"{head}the expression is nested too deeply") from None
    except UsageError as error:
        raise UsageError(f"{head}{error}", error.remedy) from None
