"""One field of an object that users write as YAML: its kind, its default and its description.

`yaml_reader` rejects fields that are not described, and `policy explain` shows the descriptions. The trap: a `value`
keeps its text as written, since its meaning depends on another field.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "text",
    "word",
    "text or number",
    "flag",
    "number",
    "integer",
    "value",
    "values",
    "object",
    "anything",
    "unsupported",
    "list of text",
    "list of list of text",
    "list of object",
    "map of text",
    "map of value",
    "map of values",
    "map of map of values",
    "map of list of text",
    "map of object",
]
"""A `word` is a text whose choices have other spellings, too; a `number` may also be a name, an `integer` may not; a
`value` is a scalar whose meaning depends on another field, and `values` are one or a list of these; maps have free
keys; `anything` is not checked; `unsupported` is rejected, for the reason in the description."""


@dataclass(frozen=True)
class SchemaField:
    """One field of an object."""

    name: str
    kind: Kind
    description: str = ""
    fields: tuple["SchemaField", ...] = ()
    required: bool = False
    default: str = ""
    choices: tuple[str, ...] = ()
    short: str = ""
    """of objects: a plain text in the place of one sets this field alone"""
