"""Shapes: the types of values in CEL, with the members of objects. Filters check by the shapes of members of rows."""

from collections.abc import Mapping
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
    "object": ANY,
}
"""Shapes by the type of a Member."""
