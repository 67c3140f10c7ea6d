"""Evaluates CEL expressions over whole columns, for the part of CEL that filters mostly use.

`compile_condition` turns a part of a syntax tree into a function from a batch to a ThreeValued. Its results equal those
of cel-python row by row; it raises NotVectorized for what it cannot do, and filter.py uses cel-python instead. Names
and types have been checked before (check.py), so types that do not fit are no error here. CEL has errors
as a third result (null.startsWith(…), 1/0), which `false && …` and `true || …` absorb; so a ThreeValued holds where it
is true and where it is false, and an error is neither.
"""

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from kubectl_gadget.filters import cel
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.kinds import Member
from kubectl_gadget.rows.texts import Texts
from kubectl_gadget.rows.vectors import Booleans, Mask, Numbers

# Conditions and numbers for whole columns: CEL's logic with errors as a third result, and its arithmetic.


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


_INTEGER_ORDER: dict[str, Callable[[object, object], Mask]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}


def any_mask(masks: Iterable[Mask], batch: Batch) -> Mask:
    """Return a mask: where at least one of the masks is true."""
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


# Evaluates CEL expressions over whole columns, for the part of CEL that filters mostly use.


ValueType = Literal["int", "text", "texts", "bool", "buckets", "object", "null", "list", "double", "uint", "bytes"]
_OTHER_LITERALS: dict[str, ValueType] = {"FLOAT_LIT": "double", "UINT_LIT": "uint", "BYTES_LIT": "bytes"}
JoinMasks = Callable[[Mask, Mask], Mask]
_SWAPPED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le", "eq": "eq", "ne": "ne"}


class NotVectorized(Exception):
    """CEL allows this expression, but this module does not support it."""


class MissingColumn(Exception):
    """Only another gadget of the run has this column; as in CEL, this is an error in each row."""


@dataclass(frozen=True)
class ColumnValue:
    """A compiled part: its type, and either its literal value or a function that reads it from a batch."""

    type: ValueType
    read: Callable[[Batch], Any]
    tree: cel.Tree
    is_literal: bool = False
    literal: Any = None


def compile_condition(
    tree: cel.Tree,
    members: Mapping[str, Member],
    elsewhere: Mapping[str, Member],
    unread: Mapping[str, Callable[[Batch], Mask]] | None = None,
) -> Callable[[Batch], ThreeValued]:
    """Compiles `tree` for batches of one gadget, whose members are `members`.

    `elsewhere` has the members of the run's other gadgets. `unread` gives, for a member, the mask of rows where it
    could not be read; in those rows a test of it is neither true nor false, except a comparison with null. Raises
    NotVectorized if CEL allows more than this module supports.
    """
    value = _Compiler(members, elsewhere, unread or {}).condition(tree)
    read: Callable[[Batch], ThreeValued] = value.read
    return read


class _Compiler:
    def __init__(
        self,
        members: Mapping[str, Member],
        elsewhere: Mapping[str, Member],
        unread: Mapping[str, Callable[[Batch], Mask]],
    ) -> None:
        self.members = members
        self.elsewhere = elsewhere
        self.unread = unread

    def condition(self, tree: cel.Tree) -> ColumnValue:
        try:
            value = self.value(tree)
        except MissingColumn:
            return ColumnValue("bool", error, tree)
        if value.type != "bool":
            raise NotVectorized(value.type)
        return value

    def value(self, tree: cel.Tree) -> ColumnValue:
        tree = cel.unwrap(tree)
        compile = getattr(self, f"_{tree.data}", None)
        if compile is None:
            raise NotVectorized(tree.data)
        value: ColumnValue = compile(tree)
        return self._where_read(value) if tree.data in ("relation", "member_dot_arg") else value

    def _where_read(self, value: ColumnValue) -> ColumnValue:
        """Makes a test undecided in rows where one of its members could not be read."""
        named = {token.value for token in cel.identifiers(value.tree)}
        masks = [mask for name, mask in self.unread.items() if name in named]
        if value.type != "bool" or not masks or _asks_for_null(value.tree):
            return value

        def read(batch: Batch) -> ThreeValued:
            condition: ThreeValued = value.read(batch)
            known = ~any_mask((mask(batch) for mask in masks), batch)
            return ThreeValued(condition.yes & known, condition.false() & known)

        return replace(value, read=read)

    def _literal(self, tree: cel.Tree) -> ColumnValue:
        try:
            value = cel.literal(tree)
        except LookupError:
            other: ValueType = _OTHER_LITERALS[tree.children[0].type]
            return ColumnValue(other, _no_value, tree, True)
        if isinstance(value, bool):
            return ColumnValue("bool", lambda batch: ThreeValued(np.full(len(batch), value)), tree, True, value)
        if isinstance(value, int):
            return ColumnValue("int", lambda batch: Integers(np.full(len(batch), value, np.int64)), tree, True, value)
        kind: ValueType = "null" if value is None else "text"
        return ColumnValue(kind, lambda batch: Texts(lambda: [value] * len(batch), len(batch)), tree, True, value)

    def _list_lit(self, tree: cel.Tree) -> ColumnValue:
        items = [self.value(item) for item in cel.arguments(tree, 0)]
        types = {item.type for item in items}
        if not all(item.is_literal for item in items) or len(types) > 1 or not types <= {"int", "text", "bool"}:
            raise NotVectorized("list of expressions")
        return ColumnValue("list", _no_value, tree, True, [item.literal for item in items])

    def _ident(self, tree: cel.Tree) -> ColumnValue:
        return self._member(tree.children[0].value, tree)

    def _member_dot(self, tree: cel.Tree) -> ColumnValue:
        """A member of a member, which `members` has as `outer.inner`."""
        outer = cel.unwrap(tree.children[0])
        if outer.data != "ident":
            raise NotVectorized(tree.data)
        return self._member(f"{outer.children[0].value}.{tree.children[1].value}", tree)

    def _member(self, name: str, tree: cel.Tree) -> ColumnValue:
        if name not in self.members:
            if name in self.elsewhere:
                raise MissingColumn(name)
            raise NotVectorized(name)
        member = self.members[name]

        def read(batch: Batch) -> object:
            vector = batch.vector(name, member.read)
            if isinstance(vector, Booleans):
                return ThreeValued(vector.array)
            return numbers(vector) if isinstance(vector, Numbers) else vector

        return ColumnValue(member.type, read, tree)

    def _conditionaland(self, tree: cel.Tree) -> ColumnValue:
        return self._joined(tree, operator.and_, operator.or_)

    def _conditionalor(self, tree: cel.Tree) -> ColumnValue:
        return self._joined(tree, operator.or_, operator.and_)

    def _joined(self, tree: cel.Tree, join_true: JoinMasks, join_false: JoinMasks) -> ColumnValue:
        left, right = map(self.condition, tree.children)

        def read(batch: Batch) -> ThreeValued:
            a, b = left.read(batch), right.read(batch)
            is_plain = a.no is None and b.no is None
            return ThreeValued(join_true(a.yes, b.yes), None if is_plain else join_false(a.false(), b.false()))

        return ColumnValue("bool", read, tree)

    def _unary(self, tree: cel.Tree) -> ColumnValue:
        sign, operand = tree.children
        if sign.data == "unary_not":
            value = self.condition(operand)

            def read(batch: Batch) -> ThreeValued:
                condition = value.read(batch)
                return ThreeValued(condition.false(), condition.yes)

            return ColumnValue("bool", read, tree)
        number = self._number(operand)
        return ColumnValue("int", lambda batch: arithmetic("sub", _ZERO, number.read(batch)), tree)

    def _addition(self, tree: cel.Tree) -> ColumnValue:
        operation, right = tree.children
        name, left = operation.data.rpartition("_")[2], operation.children[0]
        if name == "add" and self.value(left).type == self.value(right).type == "text":
            raise NotVectorized("joined texts")
        first, second = self._number(left), self._number(right)
        return ColumnValue("int", lambda batch: arithmetic(name, first.read(batch), second.read(batch)), tree)

    _multiplication = _addition

    def _number(self, tree: cel.Tree) -> ColumnValue:
        value = self.value(tree)
        if value.type != "int":
            raise NotVectorized(value.type)
        return value

    def _relation(self, tree: cel.Tree) -> ColumnValue:
        operation, right_tree = tree.children
        name = operation.data.rpartition("_")[2]
        left, right = self.value(operation.children[0]), self.value(right_tree)
        if name == "in":
            return ColumnValue("bool", self._membership(left, right), tree)
        if left.is_literal and not right.is_literal:
            left, right, name = right, left, _SWAPPED[name]
        return ColumnValue("bool", self._comparison(name, left, right), tree)

    def _comparison(self, name: str, left: ColumnValue, right: ColumnValue) -> Callable[[Batch], ThreeValued]:
        if "object" in (left.type, right.type):
            raise NotVectorized("object")
        if "null" in (left.type, right.type):
            if name not in ("eq", "ne") or right.type != "null":
                raise NotVectorized("null")
            return lambda batch: negated(name, is_null(left.read(batch)))
        if left.type != right.type:
            raise NotVectorized(name)
        if left.type == "int":
            return lambda batch: compare_integers(name, left.read(batch), right.read(batch))
        if left.is_literal and right.is_literal:
            raise NotVectorized("literals")
        if left.type == "bool" and name in ("eq", "ne"):
            return lambda batch: negated(name, same_answers(left.read(batch), right.read(batch)))
        if left.type == "text" and right.is_literal:
            if name in ("eq", "ne"):
                return lambda batch: negated(name, ThreeValued(left.read(batch).equals(right.literal)))
            return _test(left, _ORDER[name](right.literal))
        raise NotVectorized(name)

    def _membership(self, left: ColumnValue, right: ColumnValue) -> Callable[[Batch], ThreeValued]:
        if right.type == "texts":
            if left.type != "text" or not left.is_literal:
                raise NotVectorized("in")
            return lambda batch: contained(left.literal, right.read(batch).values())
        if right.type != "list":
            raise NotVectorized("in")
        wanted = right.literal
        if wanted and (left.type, type(wanted[0])) not in (("int", int), ("text", str)):
            raise NotVectorized("in")
        if left.type == "int":
            return lambda batch: decided(np.isin((value := left.read(batch)).array, wanted), value.valid)
        if left.type == "text":
            return lambda batch: any_equal(left.read(batch), wanted)
        raise NotVectorized("in")

    def _member_dot_arg(self, tree: cel.Tree) -> ColumnValue:
        receiver, method = tree.children[0], tree.children[1].value
        items = cel.arguments(tree, 2)
        if method == "size" and not items:
            return self._size(tree, receiver)
        if method not in _METHODS or len(items) != 1:
            raise NotVectorized(method)
        text, argument = self.value(receiver), self.value(items[0])
        if text.type != "text" or argument.type != "text" or not argument.is_literal:
            raise NotVectorized(method)
        if method == "matches":
            search = cel.compile_pattern(argument.literal).search
            return ColumnValue("bool", _search(text, search), tree)
        match = _METHODS[method]
        return ColumnValue(
            "bool", lambda batch: decided(match(v := text.read(batch), argument.literal), v.valid()), tree
        )

    def _ident_arg(self, tree: cel.Tree) -> ColumnValue:
        items = cel.arguments(tree, 1)
        if tree.children[0].value != "size" or len(items) != 1:
            raise NotVectorized(tree.children[0].value)
        return self._size(tree, items[0])

    def _size(self, tree: cel.Tree, of: cel.Tree) -> ColumnValue:
        value = self.value(of)
        if value.type not in ("text", "texts"):
            raise NotVectorized(value.type)
        return ColumnValue("int", lambda batch: sizes(value.read(batch)), tree)


_ZERO = Integers(np.zeros(1, np.int64))
_METHODS: dict[str, Callable[[Texts, str], Mask]] = {
    "startsWith": lambda texts, literal: texts.starts_with(literal),
    "endsWith": lambda texts, literal: texts.ends_with(literal),
    "contains": lambda texts, literal: texts.test(lambda text: literal in text),
    "matches": lambda texts, literal: texts.test(lambda text: False),
}
_ORDER: dict[str, Callable[[str], Callable[[str], bool]]] = {
    "lt": lambda literal: lambda text: text < literal,
    "le": lambda literal: lambda text: text <= literal,
    "gt": lambda literal: lambda text: text > literal,
    "ge": lambda literal: lambda text: text >= literal,
}


def _asks_for_null(test: cel.Tree) -> bool:
    sides = (test.children[0].children[0], test.children[1]) if test.data == "relation" else ()
    return any(cel.is_null(side) for side in sides)


def _no_value(batch: Batch) -> None:
    return None


def _search(value: ColumnValue, search: Callable[[str], object]) -> Callable[[Batch], ThreeValued]:
    """Like _test. Most texts, such as paths, come more than once, and a search takes a microsecond or more."""

    def read(batch: Batch) -> ThreeValued:
        texts = value.read(batch)
        return decided(texts.test(cache(lambda text: search(text) is not None)), texts.valid())

    return read


def _test(value: ColumnValue, check: Callable[[str], bool]) -> Callable[[Batch], ThreeValued]:
    def read(batch: Batch) -> ThreeValued:
        texts = value.read(batch)
        return decided(texts.test(check), texts.valid())

    return read
