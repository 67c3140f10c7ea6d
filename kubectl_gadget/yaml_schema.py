"""One field of an object that users write as YAML: its kind, its default and its description.

`yaml_reader` rejects fields that are not described, and `policy explain` shows the descriptions. A `value`
keeps its text as written, since its meaning depends on another field.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from kubectl_gadget.yaml_files import own_data

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


Make = Callable[[str, Mapping[str, Any]], SchemaField]
_NONE: Mapping[str, Any] = MappingProxyType({})


def own_schema(
    path: Path, name: str, choices: Mapping[str, Iterable[str]] = _NONE, made: Mapping[str, Make] = _NONE
) -> SchemaField:
    """A schema in a YAML file of this package. Where choices have only a name there, they are in `choices`; fields of
    other kinds are made by a function of `made`."""

    def field(name: str, written: Mapping[str, Any]) -> SchemaField:
        if written["kind"] in made:
            return made[written["kind"]](name, written)
        found = written.get("choices", ())
        others = {
            "fields": tuple(field(*each) for each in written.get("fields", {}).items()),
            "choices": tuple(choices[found] if isinstance(found, str) else found),
        }
        return SchemaField(name, **{**written, **others})

    return field(name, own_data(path)[name])
