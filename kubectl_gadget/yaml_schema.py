"""One field of an object that users write as YAML: its type, its default and its description.

Readers reject fields that are not described (yaml_reader.py), and `policy explain` shows the descriptions. The trap:
`values` keep the text as written, since their meaning depends on another field.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "text",
    "flag",
    "number",
    "values",
    "texts",
    "object",
    "objects",
    "text map",
    "object map",
    "anything",
    "unsupported",
]
"""`values` are scalars whose meaning depends on another field; the maps have free keys; `anything` is not checked;
`unsupported` is rejected, for the reason in the description."""


@dataclass(frozen=True)
class SchemaField:
    """One field of an object."""

    name: str
    kind: Kind
    description: str
    fields: tuple["SchemaField", ...] = ()
    required: bool = False
    default: str = ""
    choices: tuple[str, ...] = ()


def labels_field(name: str, description: str) -> SchemaField:
    """A label selector."""
    expressions = (
        SchemaField("key", "text", "The label.", required=True),
        SchemaField(
            "operator",
            "text",
            "NotIn and DoesNotExist also select what has no such label.",
            required=True,
            choices=("In", "NotIn", "Exists", "DoesNotExist"),
        ),
        SchemaField("values", "texts", "For In and NotIn: any of them."),
    )
    return SchemaField(
        name,
        "object",
        description,
        (
            SchemaField("matchLabels", "text map", "Labels and their values; all have to be there."),
            SchemaField("matchExpressions", "objects", "Conditions on labels; all have to hold.", expressions),
        ),
    )
