"""One field of an object that users write as YAML: its kind, its default and what it is for.

Readers refuse what no field describes (document.py), and `policy explain` shows it. The trap: `values` keep the text
that was written, since only another field settles what it means.
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
"""`values` are scalars whose meaning another field settles; the maps have free keys; `anything` is not looked into;
`unsupported` is refused, for the reason that the description gives."""


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
