"""CEL: its types, the signatures of operators and functions (cel-python's overloads), and the syntax tree of a text.

The grammar, the tree and the meaning of literals are cel-python's. Its tree has one level per rule of the grammar, so
most nodes only wrap another one. The traps: importing cel-python takes 0.1 s, so it is imported when a filter is
compiled; and it is plain Python below, where `true * "a"` is a text and `3 == "3"` an error in each row. What is not
in the CEL specification is rejected here, except functions that cel-python also accepts as `f(receiver, …)`.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from re import Match
from typing import Any, Protocol, TypeAlias

from kubectl_gadget.errors import UsageError
from kubectl_gadget.rows.shapes import (
    ANY,
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    INT,
    LIST,
    MAP,
    TEXT,
    TIMESTAMP,
    TYPE,
    UINT,
    Shape,
)

# The types of CEL, and the signatures of operators and functions: cel-python's overloads.


ARITHMETIC: Mapping[str, Mapping[tuple[str, str], Shape]] = {
    "+": {
        ("text", "text"): TEXT,
        ("bytes", "bytes"): BYTES,
        ("list", "list"): LIST,
        ("timestamp", "duration"): TIMESTAMP,
        ("duration", "timestamp"): TIMESTAMP,
        ("duration", "duration"): DURATION,
    },
    "-": {
        ("timestamp", "timestamp"): DURATION,
        ("timestamp", "duration"): TIMESTAMP,
        ("duration", "duration"): DURATION,
    },
    "*": {},
    "/": {},
    "%": {},
}
"""The result type of an operator for two types, in addition to numbers()."""
ORDERED = frozenset({"int", "uint", "double", "bool", "text", "bytes", "timestamp", "duration"})
"""Types that < and > can compare."""


def computed(operator: str, left: Shape, right: Shape) -> Shape | None:
    """The type of `left operator right`; None: there is no such operation."""
    if ANY in (left, right):
        return ANY
    numbers = ("int", "uint") if operator == "%" else ("int", "uint", "double")
    if left.name == right.name and left.name in numbers:
        return left
    return ARITHMETIC[operator].get((left.name, right.name))


def comparable(left: Shape, right: Shape) -> bool:
    """True if values of the two types may be equal. Null may be equal to a value of any type."""
    if any(shape.name in ("dyn", "null") for shape in (left, right)):
        return True
    if left.name != right.name:
        return False
    return left.item is None or right.item is None or comparable(left.item, right.item)


@dataclass(frozen=True)
class Overload:
    """The types that a function takes, the receiver first, and the type that it returns."""

    arguments: Sequence[str]
    result: Shape


def _overloads(result: Shape, *arguments: str) -> tuple[Overload, ...]:
    return tuple(Overload(words.split(), result) for words in arguments)


_DATE = _overloads(INT, "timestamp", "timestamp text")
_TIME = (*_DATE, *_overloads(INT, "duration"))
FUNCTIONS: Mapping[str, Sequence[Overload]] = {
    "size": _overloads(INT, "text", "bytes", "list", "map"),
    "startsWith": _overloads(BOOL, "text text", "bytes bytes"),
    "endsWith": _overloads(BOOL, "text text", "bytes bytes"),
    "contains": _overloads(BOOL, "text text", "bytes bytes"),
    "matches": _overloads(BOOL, "text text"),
    "getDate": _DATE,
    "getDayOfMonth": _DATE,
    "getDayOfWeek": _DATE,
    "getDayOfYear": _DATE,
    "getFullYear": _DATE,
    "getMonth": _DATE,
    "getHours": _TIME,
    "getMilliseconds": _TIME,
    "getMinutes": _TIME,
    "getSeconds": _TIME,
    "bool": _overloads(BOOL, "bool", "text", "int"),
    "bytes": _overloads(BYTES, "text", "bytes"),
    "double": _overloads(DOUBLE, "int", "uint", "double", "text"),
    "duration": _overloads(DURATION, "text", "duration"),
    "dyn": _overloads(ANY, "dyn"),
    "int": _overloads(INT, "int", "uint", "double", "text", "timestamp"),
    "list": _overloads(LIST, "list"),
    "map": _overloads(MAP, "map"),
    "string": _overloads(
        TEXT, "int", "uint", "double", "bool", "text", "bytes", "timestamp", "duration", "list", "map"
    ),
    "timestamp": _overloads(TIMESTAMP, "text", "timestamp"),
    "type": _overloads(TYPE, "dyn"),
    "uint": _overloads(UINT, "int", "uint", "double", "text"),
}
METHODS = frozenset({"size", "startsWith", "endsWith", "contains", "matches"})
"""Methods that are suggested for a text's method with an unknown name."""

MACROS: Mapping[str, int] = {
    "exists": 2,
    "all": 2,
    "exists_one": 2,
    "filter": 2,
    "map": 2,
    "reduce": 4,
    "min": 0,
}
"""Macros on lists and their number of arguments. The first argument is a name, except for min(); reduce() takes two
names."""


# Parses CEL text to a syntax tree, and answers questions about the tree for both ways of evaluating it.


Tree: TypeAlias = Any
"""A lark.Tree of celpy's grammar, or a token of it."""

TYPE_NAMES = frozenset(
    {"int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type", "google", "dyn"}
)

_MOST_DIGITS = 1000
"""More digits than any CEL number has; int() raises ValueError for very long numbers."""
_TEXT = r"""(?:[rR]?"(?:\\.|[^"\\])*"|[rR]?'(?:\\.|[^'\\])*')"""
_FIXES = (
    ("[“”„‟]", '"', 'write text in plain quotes: "text"'),
    ("[‘’‚‛]", "'", "write text in plain quotes: 'text'"),
    (r"(?<![=!<>~])={1,3}(?![=~])", "==", "CEL writes == for equal"),
    (r"(?i:\band\b)", "&&", "CEL writes && for and"),
    (r"(?i:\bor\b)", "||", "CEL writes || for or"),
    (r"(?<![\w.)\]])(?P<bare>\d+(?:\.\d+){3}(?:/\d+)?)\b", r'"\g<bare>"', "write text in quotes"),
    (r"(?<![\w)\]])(?P<bare>/[\w./*-]*)", r'"\g<bare>"', "write text in quotes"),
)
"""Applied in this order, outside of quoted texts: the pattern, its replacement, and the reason."""
_WRAPPERS = frozenset(
    {
        "expr",
        "conditionalor",
        "conditionaland",
        "relation",
        "addition",
        "multiplication",
        "unary",
        "member",
        "primary",
        "paren_expr",
    }
)


def parse(text: str) -> Tree:
    """The tree of an expression. Raises UsageError, which shows the place, if it does not parse."""
    from celpy.celparser import CELParseError, CELParser

    try:
        return CELParser().parse(text)
    except CELParseError as error:
        token = getattr(error.__context__, "token", None)
        if token is None or token.type != "$END":
            line, column = error.line or 1, error.column or 1
            why, remedy = _unparsed(text)
            failure = at(text, line, column, why)
            failure.remedy = remedy
            raise failure from None
        lines = text.rstrip().splitlines() or [""]
        raise at(text, len(lines), len(lines[-1]) + 1, "the expression ends too early") from None


def parses(text: str) -> bool:
    from celpy.celparser import CELParseError, CELParser

    try:
        return CELParser().parse(text) is not None
    except CELParseError:
        return False


def _unparsed(text: str) -> tuple[str, str | None]:
    """The reason why an expression does not parse, and the suggested expression if there is one."""
    if quote := re.search("[\"']", re.sub(_TEXT, "", text)):
        closed = text + quote[0]
        return "this text has no closing quote", shlex.quote(closed) if parses(closed) else None
    changed, reason = text, ""
    for pattern, replacement, why in _FIXES:
        before, changed = changed, _replace_outside_texts(pattern, replacement, changed)
        if changed != before:
            reason = reason or why
    if not reason or not parses(changed):
        return "this is not expected here", None
    return reason, shlex.quote(changed)


def _replace_outside_texts(pattern: str, replacement: str, text: str) -> str:
    return re.sub(f"(?P<text>{_TEXT})|{pattern}", lambda match: match["text"] or match.expand(replacement), text)


def at(text: str, line: int, column: int, why: str) -> UsageError:
    """A UsageError that shows the line of the expression with a caret below the column. Both count from 1."""
    lines = text.splitlines() or [""]
    shown = lines[min(line, len(lines)) - 1].replace("\t", " ")
    return UsageError(f"{why}\n  {shown}\n  {' ' * (column - 1)}^")


def at_tree(text: str, tree: Tree, why: str) -> UsageError:
    """A UsageError that shows the start of a part of the tree."""
    place = getattr(tree, "meta", tree)
    return at(text, getattr(place, "line", None) or 1, getattr(place, "column", None) or 1, why)


def unwrap(tree: Tree) -> Tree:
    """The first node at or below this one that is not a mere wrapper."""
    while getattr(tree, "data", None) in _WRAPPERS and len(tree.children) == 1:
        tree = tree.children[0]
    return tree


def evaluable(tree: Tree) -> Tree:
    """A part in a form that cel-python can evaluate alone: some of its rules only exist below `primary`."""
    from lark import Tree as Node

    is_primary = tree.data in ("literal", "ident", "dot_ident", "ident_arg", "dot_ident_arg", "list_lit", "map_lit")
    return Node("primary", [tree], tree.meta) if is_primary else tree


def conjuncts(tree: Tree) -> list[Tree]:
    """The parts that `&&` joins at the top, from left to right."""
    tree = unwrap(tree)
    if tree.data == "conditionaland":
        return [*conjuncts(tree.children[0]), *conjuncts(tree.children[1])]
    return [tree]


def arguments(tree: Tree, at: int) -> list[Tree]:
    """The expressions of the list that is the child `at` of a node; none if it has no list."""
    return [expression for listed in tree.children[at:] for expression in listed.children]


def identifiers(tree: Tree, bound: frozenset[str] = frozenset()) -> Iterator[Tree]:
    """Tokens that refer to variables outside the expression: no functions and no variables of macros."""
    tree = unwrap(tree)
    if not hasattr(tree, "children"):
        return
    if tree.data in ("ident", "dot_ident"):
        if tree.children[0].value not in bound:
            yield tree.children[0]
        return
    if tree.data == "member_dot_arg" and tree.children[1].value in MACROS and len(tree.children) == 3:
        yield from identifiers(tree.children[0], bound)
        items = arguments(tree, 2)
        names = {name.children[0].value for name in map(unwrap, items) if getattr(name, "data", "") == "ident"}
        first = unwrap(items[0])
        bound |= {first.children[0].value} if getattr(first, "data", "") == "ident" else frozenset(names)
        for item in items:
            yield from identifiers(item, bound)
        return
    for child in tree.children:
        yield from identifiers(child, bound)


class Pattern(Protocol):
    """A compiled expression of RE2, which takes linear time for every text."""

    def search(self, text: str) -> Match[str] | None:
        """Return the first match, like `re.Pattern`."""

    def finditer(self, text: str) -> Iterator[Match[str]]:
        """Return all matches, like `re.Pattern`."""
        ...

    def sub(self, to: str, text: str) -> str:
        """Return the text with all matches replaced, like `re.Pattern`."""
        ...

    @property
    def groups(self) -> int:
        """The number of groups."""
        ...


def compile_pattern(pattern: str) -> Pattern:
    """Compiles an RE2 pattern, as CEL requires: it runs in linear time. Raises ValueError with the reason if it is
    invalid."""
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        compiled: Pattern = re2.compile(pattern, options)
        return compiled
    except re2.error as error:
        raise ValueError(error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)) from None


def is_null(tree: Tree) -> bool:
    tree = unwrap(tree)
    return bool(tree.data == "literal" and tree.children[0].type == "NULL_LIT")


def literal(tree: Tree) -> Any:
    """The Python value of a literal node: int, str, bool or None. Raises LookupError for uint, double and bytes."""
    from celpy.evaluation import celstr

    token = tree.children[0]
    match token.type:
        case "INT_LIT":
            digits = token.value
            if len(digits) > _MOST_DIGITS:
                raise UsageError(f"a filter has a number of {len(digits)} digits", "64 bits hold at most 20")
            return int(digits, 16) if "0x" in digits.lower() else int(digits)
        case "STRING_LIT" | "MLSTRING_LIT":
            return str(celstr(token))
        case "BOOL_LIT":
            return bool(token.value == "true")
        case "NULL_LIT":
            return None
    raise LookupError(token.type)
