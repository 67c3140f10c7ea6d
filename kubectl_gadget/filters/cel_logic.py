"""Conditions and numbers for whole columns: CEL's logic with errors as a third result, and its arithmetic.

The trap: besides true and false, CEL has errors (null.startsWith(…), 1/0), which `false && …` and `true || …` absorb. A
ThreeValued therefore holds where it is true and where it is false; an error is neither.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.columns.texts import Texts
from kubectl_gadget.rows.vectors import Mask, Numbers

LIMIT = 1 << 63
"""CEL's integers have 64 bits including the sign."""


class ThreeValued(NamedTuple):
    """Masks of where a condition is true and where it is false; None: false wherever it is not true."""

    yes: Mask
    no: Mask | None = None

    def false(self) -> Mask:
        """The mask of where the condition is false."""
        return ~self.yes if self.no is None else self.no


class Integers(NamedTuple):
    """Numbers, and a mask of the rows that have one; None: all. Rows without a number are null or an error."""

    array: npt.NDArray[np.int64]
    valid: Mask | None = None
    null: Mask | None = None


_INTEGER_ORDER: dict[str, Callable[[Any, Any], Mask]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}


def any_mask(masks: Iterable[Mask], batch: Batch) -> Mask:
    """Where at least one of the masks is true."""
    found = np.zeros(len(batch), np.bool_)
    for mask in masks:
        found |= mask
    return found


def error(batch: Batch) -> ThreeValued:
    nowhere = np.zeros(len(batch), np.bool_)
    return ThreeValued(nowhere, nowhere)


def decided(yes: Mask, valid: Mask | None) -> ThreeValued:
    return ThreeValued(yes) if valid is None else ThreeValued(yes & valid, ~yes & valid)


def negated(name: str, condition: ThreeValued) -> ThreeValued:
    return ThreeValued(condition.false(), condition.yes) if name == "ne" else condition


def same_answers(left: ThreeValued, right: ThreeValued) -> ThreeValued:
    yes = (left.yes & right.yes) | (left.false() & right.false())
    return ThreeValued(yes, (left.yes & right.false()) | (left.false() & right.yes))


def is_null(value: Any) -> ThreeValued:
    if isinstance(value, Integers):
        return ThreeValued(np.zeros(len(value.array), np.bool_) if value.null is None else value.null)
    count = len(value.yes if isinstance(value, ThreeValued) else value)
    valid = None if isinstance(value, ThreeValued) else value.valid()
    return ThreeValued(np.zeros(count, np.bool_) if valid is None else ~valid)


def any_equal(texts: Texts, wanted: list[str]) -> ThreeValued:
    yes = np.zeros(len(texts), np.bool_)
    for literal in wanted:
        yes |= texts.equals(literal)
    return ThreeValued(yes)


def contained(literal: str, lists: list[list[str] | None]) -> ThreeValued:
    count = len(lists)
    yes = np.fromiter((items is not None and literal in items for items in lists), np.bool_, count)
    return decided(yes, np.fromiter((items is not None for items in lists), np.bool_, count))


def sizes(vector: Any) -> Integers:
    sizes = [-1 if value is None else len(value) for value in vector.values()]
    return Integers(np.array(sizes, np.int64), vector.valid())


def _both(left: Integers, right: Integers) -> Mask | None:
    if left.valid is None or right.valid is None:
        return right.valid if left.valid is None else left.valid
    return left.valid & right.valid


def numbers(vector: Numbers) -> Integers:
    """Converts a column of numbers."""
    array, known, fits = vector.array, vector.valid(), None
    if array.dtype == np.uint64 and len(array) and int(np.max(array)) >= LIMIT:
        fits = array < np.uint64(LIMIT)
    if known is None:
        return Integers(array.astype(np.int64), fits)
    return Integers(array.astype(np.int64), known if fits is None else fits & known, ~known)


def compare_integers(name: str, left: Integers, right: Integers) -> ThreeValued:
    found = decided(_INTEGER_ORDER[name](left.array, right.array), _both(left, right))
    if name not in ("eq", "ne") or left.null is None or right.null is None:
        return found
    # In CEL, null equals null.
    equal, both = negated(name, found), left.null & right.null
    return negated(name, ThreeValued(equal.yes | both, equal.false() & ~both))


def arithmetic(name: str, left: Integers, right: Integers) -> Integers:
    """CEL's arithmetic: overflow of 64 bits and division by zero are errors; quotients are truncated towards zero."""
    a, b = left.array, right.array
    valid = _both(left, right)
    with np.errstate(all="ignore"):
        if name in ("div", "mod"):
            fits = (b != 0) & ~((a == -LIMIT) & (b == -1))
            safe = np.where(fits, b, 1)
            rest = np.fmod(a, safe)
            result = rest if name == "mod" else (a - rest) // safe
        else:
            operate = {"add": np.add, "sub": np.subtract, "mul": np.multiply}[name]
            result = operate(a, b)
            fits = np.abs(operate(a.astype(np.longdouble), b.astype(np.longdouble))) < float(LIMIT)
    if not fits.all():
        valid = fits if valid is None else fits & valid
    return Integers(result, valid)
