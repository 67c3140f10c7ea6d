"""Checks a CEL expression before there are rows: names, functions, number and types of arguments, comparisons; and
suggests a correction.

All of --filter, --fail-on, --expect and the filters of `observe`, `flows` and live tables go through `check`.
Types that are unknown until there are rows (`dyn`) must pass, so each rule rejects only what is certainly wrong.
"""

import re
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from kubectl_gadget.errors import UsageError
from kubectl_gadget.filters import cel
from kubectl_gadget.filters.cel import FUNCTIONS, MACROS, METHODS, ORDERED, Overload, comparable, computed
from kubectl_gadget.rows.shapes import (
    ANY,
    BOOL,
    BYTES,
    COLUMN_SHAPES,
    DOUBLE,
    INT,
    LIST,
    MAP,
    NULL,
    TEXT,
    TYPE,
    UINT,
    Shape,
)
from kubectl_gadget.wording import suggested

# Suggests a correction for an expression whose names and types do not fit.


_FEW = 24
"""More names than this do not fit into a message."""
_BARE = re.compile(r"[\w.*:/@+%-]+")
"""Text that needs no escaping inside quotes."""


def never(text: str, side: cel.Tree, value: str, names: Collection[str]) -> tuple[str, str | None]:
    """Says that `side` never has this value, and which of its values may be meant."""
    meant = suggested(value, names, only_near=len(names) > _FEW)
    return f"{_written(text, side)} is never {value!r}", meant or None


def quoted(text: str, side: cel.Tree, other: cel.Tree, shape: Shape, columns: Sequence[str]) -> str | None:
    """The expression with quotes around `side`, which is not a column; it is compared with `other`, of this shape."""
    start, end = _span(side)
    written = text[start:end].lstrip("-")
    if shape.name == "int" and (named := _names_of(other, columns)) is not None and _BARE.fullmatch(written):
        return _changed(text, [(start, end, f'"{written}"'), (*_span(other), named)])
    if shape.name not in ("text", "dyn") and not (shape.item and shape.item.name == "text"):
        return None
    tree = cel.unwrap(side)
    if tree.data == "list_lit":
        items = [(item, _written(text, item)) for item in cel.arguments(tree, 0)]
        return _changed(text, [(*_span(item), f'"{bare}"') for item, bare in items if _BARE.fullmatch(bare)])
    return _changed(text, [(start, end, f'"{written}"')]) if _BARE.fullmatch(written) else None


def other_type(text: str, literal: cel.Tree, other: cel.Tree, columns: Sequence[str]) -> str | None:
    """Corrects a comparison of a text with a number: adds or removes quotes, or names the column of the text."""
    written = _written(text, literal)
    if not _is_literal(literal) or written in ("true", "false", "null"):
        return None
    if written[:1] not in ("'", '"'):
        return _changed(text, [(*_span(literal), f'"{written}"')])
    plain = written.strip("\"'")
    if re.fullmatch(r"-?\d+", plain):
        return _changed(text, [(*_span(literal), plain)])
    named = _names_of(other, columns)
    return _changed(text, [(*_span(other), named)]) if named else None


def _names_of(tree: cel.Tree, columns: Sequence[str]) -> str | None:
    """The column of names that belongs to a column of numbers."""
    tree = cel.unwrap(tree)
    if tree.data != "ident":
        return None
    name = tree.children[0].value
    beside = [*(["error"] if name == "errno" else []), f"{name}_name", name.removesuffix("_raw")]
    return next((found for found in beside if found in columns and found != name), None)


def _span(tree: cel.Tree) -> tuple[int, int]:
    place: Any = getattr(tree, "meta", tree)
    return place.start_pos, place.end_pos


def _written(text: str, tree: cel.Tree) -> str:
    """A part of the expression, as it was typed."""
    return text[slice(*_span(tree))]


def _changed(text: str, changes: Sequence[tuple[int, int, str]]) -> str | None:
    """The expression with parts replaced; None if it would not parse."""
    for start, end, part in sorted(changes, reverse=True):
        text = text[:start] + part + text[end:]
    return shlex.quote(text) if changes and cel.parses(text) else None


# Checks a CEL expression before there are rows: names, functions, number and types of arguments, comparisons.


_MOST, _LEAST = (1 << 63) - 1, -(1 << 63)
_OPERATORS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "mod": "%"}
_LITERALS = {"FLOAT_LIT": DOUBLE, "UINT_LIT": UINT, "BYTES_LIT": BYTES}
_PREDICATES = ("exists", "all", "exists_one", "filter")
_VARIANTS = ("bytes", "cut", "mark", "raw")


def check(text: str, tree: cel.Tree, columns: Mapping[str, Shape], headings: Mapping[str, str] | None = None) -> None:
    """Raises UsageError, with the place and a suggestion, if the expression is certainly wrong.

    `headings` maps the lower-case headings of tables to column names.
    """
    checker = _Checker(text, columns, headings or {})
    checker.condition(tree, {}, "")


def column_shapes(
    types: Mapping[str, str], elsewhere: Iterable[str] = (), names: Mapping[str, frozenset[str]] | None = None
) -> dict[str, Shape]:
    """Shapes of one gadget's members, by their types. Members that only other gadgets of the run have may be of any
    type: they are checked with those gadgets. `names`: all values of some texts (Shape.names)."""
    own = {name: COLUMN_SHAPES[type] for name, type in types.items()}
    for name, known in (names or {}).items():
        if known and name in own:
            own[name] = replace(own[name], names=known)
    return {name: ANY for name in elsewhere} | own


class _Checker:
    """Checks one expression. `bound` are the variables of macros around a part."""

    def __init__(self, text: str, columns: Mapping[str, Shape], headings: Mapping[str, str]) -> None:
        self.text = text
        self.columns = columns
        self.headings = headings

    def condition(self, tree: cel.Tree, bound: Mapping[str, Shape], method: str) -> Shape:
        """Checks a part that must be true or false; `method` is the macro whose condition it is."""
        shape = self.shape(tree, bound)
        if shape.name not in ("bool", "dyn"):
            self.fail(tree, f"this is {shape}, not a condition{method and f' for {method}()'}")
        return BOOL

    def shape(self, tree: cel.Tree, bound: Mapping[str, Shape]) -> Shape:
        tree = cel.unwrap(tree)
        rule: Callable[[cel.Tree, Mapping[str, Shape]], Shape] | None = getattr(self, f"_{tree.data}", None)
        return ANY if rule is None else rule(tree, bound)

    def fail(self, tree: cel.Tree, why: str, remedy: str | None = None) -> NoReturn:
        error = cel.at_tree(self.text, tree, why)
        error.remedy = remedy
        raise error

    def _literal(self, tree: cel.Tree, bound: Mapping[str, Shape]) -> Shape:
        try:
            value = cel.literal(tree)
        except LookupError:
            return _LITERALS[tree.children[0].type]
        if isinstance(value, bool):
            return BOOL
        if isinstance(value, int):
            if not _LEAST <= value <= _MOST:
                self.fail(tree, "this number has more than 64 bits")
            return INT
        return NULL if value is None else TEXT

    def _ident(self, tree: cel.Tree, bound: Mapping[str, Shape]) -> Shape:
        token = tree.children[0]
        found = bound.get(token.value) or self.columns.get(token.value)
        if found is not None:
            return found
        if token.value in cel.TYPE_NAMES:
            return ANY if token.value == "google" else TYPE
        error = cel.at(self.text, token.line, token.column, f"there is no column {token.value!r}")
        meant = self.headings.get(token.value.lower())
        error.remedy = f"{meant}?" if meant else suggested(token.value, [*self._plain_columns(), *bound])
        raise error

    _dot_ident = _ident

    def _plain_columns(self) -> list[str]:
        """The columns to suggest: `path`, and not `path_bytes` and `path_cut`, which most filters do not need."""
        split = [(name, name.rpartition("_")) for name in self.columns]
        return [name for name, (of, _, suffix) in split if not (suffix in _VARIANTS and of in self.columns)]

    def _expr(self, tree: cel.Tree, bound: Mapping[str, Shape]) -> Shape:
        test, first, second = tree.children
        self.condition(test, bound, "")
        left, right = self.shape(first, bound), self.shape(second, bound)
        return left if left == right else ANY

    def _conditionalor(self, tree: cel.Tree, bound: Mapping[str, Shape]) -> Shape:
        for part in tree.children:
            self.condition(part, bound, "")
        return BOOL

    _conditionaland = _conditionalor

    def _unary(self, tree: cel.Tree, bound: Mapping[str, Shape]) -> Shape:
        sign, operand = tree.children
        if sign.data == "unary_not":
            return self.condition(operand, bound, "")
        shape = self.shape(operand, bound)
        if shape.name not in ("int", "double", "dyn"):
            self.fail(operand, f"this is {shape}, not a number")
        return shape

    def _addition(self, tree: cel.Tree, bound: Mapping[str, Shape]) -> Shape:
        operator, right_tree = tree.children
        left_tree, sign = operator.children[0], _OPERATORS[operator.data.rpartition("_")[2]]
        left, right = self.shape(left_tree, bound), self.shape(right_tree, bound)
        result = computed(sign, left, right)
        if result is not None:
            return result
        numbers = ("int", "uint", "double")
        for side, shape, other in ((left_tree, left, right), (right_tree, right, left)):
            if shape.name not in numbers and other.name in numbers:
                self.fail(side, f"this is {shape}, not a number")
        self.fail(left_tree, f"{left} {sign} {right} is not known")

    _multiplication = _addition

    def _relation(self, tree: cel.Tree, bound: Mapping[str, Shape]) -> Shape:
        operator, right_tree = tree.children
        left_tree, name = operator.children[0], operator.data.rpartition("_")[2]
        self._unquoted(right_tree, left_tree, bound)
        self._unquoted(left_tree, right_tree, bound)
        left, right = self.shape(left_tree, bound), self.shape(right_tree, bound)
        if name == "in":
            self._membership(tree, left_tree, right_tree, left, right)
            return BOOL
        if not comparable(left, right):
            place = right_tree if _is_literal(left_tree) and not _is_literal(right_tree) else left_tree
            pair = (left, right) if place is left_tree else (right, left)
            remedy = None
            if {left.name, right.name} == {"int", "text"}:
                literal, other = (left_tree, right_tree) if _is_literal(left_tree) else (right_tree, left_tree)
                remedy = other_type(self.text, literal, other, list(self.columns))
            self.fail(place, f"this is {pair[0]} and cannot be compared with {pair[1]}", remedy)
        if name in ("eq", "ne"):
            self._can_be(left_tree, right_tree, right)
            self._can_be(right_tree, left_tree, left)
        elif "dyn" not in (left.name, right.name):
            for side, shape in ((left_tree, left), (right_tree, right)):
                if shape.name not in ORDERED:
                    self.fail(side, f"this is {shape}, which has no order")
        return BOOL

    def _can_be(self, literal: cel.Tree, other: cel.Tree, shape: Shape) -> None:
        """Rejects a literal text that `other`, of this shape, never has."""
        if shape.names and _is_literal(literal):
            value = cel.literal(cel.unwrap(literal))
            if value and value not in shape.names and not value.lstrip("-").isdecimal():
                self.fail(literal, *never(self.text, other, value, shape.names))

    def _unquoted(self, side: cel.Tree, other: cel.Tree, bound: Mapping[str, Shape]) -> None:
        """`comm == cat`, `errno == ENOENT`: `side` has names where a text, or the name of a number, was meant."""
        known = {*self.columns, *bound, *cel.TYPE_NAMES}
        names = [token for token in cel.identifiers(side, frozenset(bound)) if token.value not in known]
        others = list(cel.identifiers(other, frozenset(bound)))
        if not names or not others or any(token.value not in known for token in others):
            return
        shape = self.shape(other, bound)
        meant = [suggested(names[0].value, list(self.columns), 0.7, 1, only_near=True)]
        meant.append(quoted(self.text, side, other, shape, list(self.columns)) or "")
        if not any(meant) and shape.name in ("int", "bool"):
            meant.append(f"what is compared with it is {shape}")
        if any(meant):
            error = cel.at(self.text, names[0].line, names[0].column, f"there is no column {names[0].value!r}")
            error.remedy = " or ".join(filter(None, meant))
            raise error

    def _membership(self, tree: cel.Tree, left_tree: cel.Tree, right_tree: cel.Tree, left: Shape, right: Shape) -> None:
        if right.name not in ("list", "map", "dyn"):
            self.fail(right_tree, f"this is {right}, not a list")
        item = TEXT if right.name == "map" else right.item
        if item is not None and not comparable(left, item):
            if cel.unwrap(right_tree).data == "list_lit":
                self.fail(left_tree, f"this is {left}, but the list has {item}: they are never equal")
            self.fail(left_tree, f"this is {left} and cannot be in {right}")
        listed = cel.unwrap(right_tree)
        if listed.data == "list_lit":
            for one in cel.arguments(listed, 0):
                self._can_be(one, left_tree, left)

    def _list_lit(self, tree: cel.Tree, bound: Mapping[str, Shape]) -> Shape:
        items = cel.arguments(tree, 0)
        shapes = [self.shape(item, bound) for item in items]
        for shape in shapes[1:]:
            if not comparable(shapes[0], shape):
                self.fail(
                    items[0], f"this is {shapes[0]} and cannot be compared with {shape}, which is in the same list"
                )
        return Shape("list", next((shape for shape in shapes if shape != NULL), None))

    def _map_lit(self, tree: cel.Tree, bound: Mapping[str, Shape]) -> Shape:
        for item in cel.arguments(tree, 0):
            self.shape(item, bound)
        return MAP

    def _member_dot(self, tree: cel.Tree, bound: Mapping[str, Shape]) -> Shape:
        shape, name = self.shape(tree.children[0], bound), tree.children[1]
        if shape.name == "dyn" or (shape.name == "map" and shape.members is None):
            return ANY
        if shape.name != "map":
            self.fail(name, f"what is before the dot is {shape}, which has no members")
        return self._member(name, name.value, shape)

    def _member(self, place: cel.Tree, name: str, shape: Shape) -> Shape:
        assert shape.members is not None
        if name not in shape.members:
            self.fail(place, f"there is no member {name!r}", suggested(name, shape.members))
        return shape.members[name]

    def _member_index(self, tree: cel.Tree, bound: Mapping[str, Shape]) -> Shape:
        shape, index = self.shape(tree.children[0], bound), self.shape(tree.children[1], bound)
        wanted = {"list": "int", "text": "int", "map": "text"}.get(shape.name)
        if shape.name == "dyn":
            return ANY
        if wanted is None:
            self.fail(tree.children[0], f"this is {shape}, which has no elements")
        if index.name not in (wanted, "dyn"):
            self.fail(tree.children[1], f"this is {index}; elements of {shape} have {Shape(wanted)}")
        key = cel.unwrap(tree.children[1])
        if shape.members is not None and key.data == "literal":
            return self._member(key, cel.literal(key), shape)
        return TEXT if shape.name == "text" else shape.item or ANY

    def _member_dot_arg(self, tree: cel.Tree, bound: Mapping[str, Shape]) -> Shape:
        receiver, name = tree.children[0], tree.children[1]
        items = cel.arguments(tree, 2)
        if name.value in MACROS:
            return self._macro(receiver, name, items, bound)
        return self._call(tree, name, [receiver, *items], bound, is_method=True)

    def _ident_arg(self, tree: cel.Tree, bound: Mapping[str, Shape]) -> Shape:
        name, items = tree.children[0], cel.arguments(tree, 1)
        if name.value == "has":
            if len(items) != 1:
                self.fail(name, f"has() takes one member, not {len(items)}", "has(object.member)")
            self.shape(items[0], bound)
            return BOOL
        return self._call(tree, name, items, bound, is_method=False)

    _dot_ident_arg = _ident_arg

    def _call(
        self,
        tree: cel.Tree,
        name: cel.Tree,
        items: Sequence[cel.Tree],
        bound: Mapping[str, Shape],
        is_method: bool,
    ) -> Shape:
        overloads = FUNCTIONS.get(name.value)
        if overloads is None or (is_method and name.value == "dyn"):
            what = "method" if is_method else "function"
            remedy = suggested(name.value, METHODS | set(MACROS) if is_method else {*FUNCTIONS, "has"})
            self.fail(name, f"there is no {what} {name.value}()", remedy)
        for item in items[1:] if name.value in METHODS else ():
            self._unquoted(item, items[0], bound)
        shapes = [self.shape(item, bound) for item in items]
        fitting = [overload for overload in overloads if len(overload.arguments) == len(shapes)]
        if not fitting:
            self.fail(name, f"{name.value}() takes {_count(overloads, is_method)}, not {len(items) - is_method}")
        for place, (item, shape) in enumerate(zip(items, shapes, strict=True)):
            kept = [overload for overload in fitting if "dyn" in (overload.arguments[place], shape.name)]
            kept = kept or [overload for overload in fitting if overload.arguments[place] == shape.name]
            if not kept:
                self._wrong_argument(name.value, item, shape, place, fitting, is_method)
            fitting = kept
        self._constant(tree, name, items)
        return fitting[0].result if len({overload.result.name for overload in fitting}) == 1 else ANY

    def _wrong_argument(
        self, name: str, item: cel.Tree, shape: Shape, place: int, fitting: Sequence[Overload], is_method: bool
    ) -> NoReturn:
        if name == "size":
            self.fail(item, f"this is {shape}, which has no size")
        words = dict.fromkeys(str(Shape(overload.arguments[place])) for overload in fitting)
        wanted = next(iter(words)) if name in ("startsWith", "endsWith", "contains") else " or ".join(words)
        is_unquoted = place == 1 and shape.name == "int"
        remedy = _changed(self.text, [(*_span(item), f'"{_written(self.text, item)}"')]) if is_unquoted else None
        self.fail(item, f"this is {shape}; {name}() {'needs' if is_method and not place else 'takes'} {wanted}", remedy)

    def _constant(self, tree: cel.Tree, name: cel.Tree, items: Sequence[cel.Tree]) -> None:
        """Checks the value of a literal now: a pattern, a time, a number in a text."""
        if name.value == "matches" and _is_literal(items[1]):
            try:
                cel.compile_pattern(cel.literal(cel.unwrap(items[1])))
            except ValueError as error:
                self.fail(items[1], f"invalid pattern: {error}")
        elif name.value in ("timestamp", "duration", "int", "uint", "double") and all(map(_is_literal, items)):
            from celpy import Environment

            try:
                Environment().program(cel.evaluable(tree)).evaluate({})
            except Exception:
                # An error that cel-python raises for this value would recur in each row.
                example = {"timestamp": 'timestamp("2026-01-31T12:00:00Z")', "duration": 'duration("1h30m")'}
                self.fail(items[0], f"{name.value}() cannot parse this", example.get(name.value))

    def _macro(
        self,
        receiver: cel.Tree,
        name: cel.Tree,
        items: Sequence[cel.Tree],
        bound: Mapping[str, Shape],
    ) -> Shape:
        shape = self.shape(receiver, bound)
        if shape.name not in ("list", "map", "dyn"):
            self.fail(receiver, f"this is {shape}; {name.value}() needs a list")
        count = MACROS[name.value]
        if len(items) != count:
            usage = {4: "(result, item, start, expression)", 0: "()"}.get(count, "(item, condition)")
            self.fail(name, f"{name.value}() takes {count} arguments, not {len(items)}", f"{name.value}{usage}")
        item = TEXT if shape.name == "map" else shape.item or ANY
        if not items:
            return item
        names = [cel.unwrap(place) for place in items[: count // 2]]
        for place in names:
            if place.data != "ident":
                self.fail(place, f"{name.value}() takes the name of a variable here, such as `item`")
        if name.value == "reduce":
            self.shape(items[2], bound)
            self.shape(items[3], {**bound, names[0].children[0].value: ANY, names[1].children[0].value: item})
            return ANY
        inner = {**bound, names[0].children[0].value: item}
        if name.value in _PREDICATES:
            self.condition(items[1], inner, name.value)
            return Shape("list", item) if name.value == "filter" else BOOL
        result = self.shape(items[1], inner)
        return LIST if result.name in ("dyn", "null") else Shape("list", result)


def _is_literal(tree: cel.Tree) -> bool:
    return bool(cel.unwrap(tree).data == "literal")


def _count(overloads: Sequence[Overload], is_method: bool) -> str:
    counts = sorted({len(overload.arguments) - is_method for overload in overloads})
    noun = "argument" if counts in ([1], [0, 1]) else "arguments"
    return f"{' or '.join('no' if not count else 'one' if count == 1 else str(count) for count in counts)} {noun}"


__all__ = ["UsageError", "check", "column_shapes"]
