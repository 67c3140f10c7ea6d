"""The types of CEL, and the signatures of operators and functions: cel-python's overloads.

The trap: cel-python is plain Python below, where `true * "a"` is a text and `3 == "3"` an error in each row. What is
not in the CEL specification is rejected here, except functions that cel-python also accepts as `f(receiver, …)`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Shape:
    """The type of an expression. A value of any type may be null in a row."""

    name: str
    item: "Shape | None" = None
    """the element type of a list"""
    members: "Mapping[str, Shape] | None" = None
    """the members of a map; None: any members of any type"""
    names: frozenset[str] = frozenset()
    """of a text: all values that it can have, besides an empty text and numbers; empty: any text"""

    def __str__(self) -> str:
        if self.name == "list" and self.item is not None and self.item.name in _PLURALS:
            return f"a list of {_PLURALS[self.item.name]}"
        return _WORDS[self.name]


_WORDS = {
    "int": "a number",
    "text": "a string",
    "bool": "true or false",
    "null": "null",
    "list": "a list",
    "map": "an object",
    "double": "a number with a fraction",
    "uint": "an unsigned number",
    "bytes": "bytes",
    "timestamp": "a time",
    "duration": "a duration",
    "type": "a type",
    "dyn": "a value",
}
_PLURALS = {"text": "strings", "int": "numbers", "map": "objects"}

INT, UINT, DOUBLE = Shape("int"), Shape("uint"), Shape("double")
TEXT, BYTES, BOOL, NULL = Shape("text"), Shape("bytes"), Shape("bool"), Shape("null")
TIMESTAMP, DURATION, TYPE = Shape("timestamp"), Shape("duration"), Shape("type")
ANY: Final = Shape("dyn")
"""Unknown until there are rows; nothing about it is rejected."""
LIST, MAP = Shape("list"), Shape("map")
TEXTS = Shape("list", TEXT)
_BUCKET = Shape("map", members={"from": INT, "to": INT, "count": INT})
COLUMN_SHAPES: Mapping[str, Shape] = {
    "int": INT,
    "text": TEXT,
    "texts": TEXTS,
    "bool": BOOL,
    "buckets": Shape("list", _BUCKET),
}
"""Shapes by the type of a Member."""

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
    """Whether values of the two types may be equal. Null may be equal to a value of any type."""
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
