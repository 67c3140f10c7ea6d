"""The fields of a gadget's YAML; docs/writing-gadgets.md says what they mean."""

from typing import get_args

from kubectl_gadget.events.schema import NANOSECONDS, Answer, Show
from kubectl_gadget.yaml_schema import SchemaField

_TYPES = ("bool", "int", "string", "syscalls", "pcap", "address", "functions", "paths", "duration")


def _texts(*names: str) -> list[SchemaField]:
    return [SchemaField(name, "list of text") for name in names]


def _flags(*names: str) -> list[SchemaField]:
    return [SchemaField(name, "flag") for name in names]


def _required(*names: str) -> list[SchemaField]:
    return [SchemaField(name, "text", required=True) for name in names]


def _one_of(name: str, *choices: str, required: bool = False) -> SchemaField:
    return SchemaField(name, "text", choices=choices, required=required)


_PROGRAM = (
    SchemaField("any_of", "list of list of text", required=True),
    *_flags("optional", "aside"),
    SchemaField("purpose", "text"),
    SchemaField("when", "map of value"),
)
_LIBRARY = (*_texts("files"), SchemaField("functions", "map of list of text", required=True))
_PARAMETER = (
    *_required("name", "description"),
    _one_of("type", *_TYPES, required=True),
    *(SchemaField(name, "text") for name in ("variable", "column")),
    SchemaField("default", "value"),
    _one_of("test", "equal", "prefix"),
    _one_of("names", "signal", "capability", "errno"),
    _one_of("unit", *NANOSECONDS),
    *_texts("words", "choices", "shows"),
)
_COLUMN = (
    *_required("name"),
    *(SchemaField(name, "text") for name in ("title", "field", "description")),
    _one_of("show", *get_args(Show)),
    SchemaField("width", "integer"),
    _one_of("align", "left", "right"),
    *_flags("stretch"),
    *(SchemaField(name, "map of value") for name in ("values", "flags")),
)
_QUOTIENT = (*_required("field", "of", "per"), SchemaField("times", "integer"))

GADGET = SchemaField(
    "gadget",
    "object",
    fields=(
        *_required("command", "group", "summary", "record"),
        *(SchemaField(name, "text") for name in ("description", "view", "sent", "sampler", "sort", "weight")),
        _one_of("kind", *get_args(Answer)),
        SchemaField("columns", "list of object", fields=_COLUMN, required=True, short="name"),
        SchemaField("examples", "list of object", fields=tuple(_required("command", "description")), required=True),
        SchemaField("programs", "list of object", fields=_PROGRAM),
        SchemaField("libraries", "list of object", fields=_LIBRARY),
        SchemaField("parameters", "list of object", fields=_PARAMETER),
        SchemaField("quotients", "list of object", fields=_QUOTIENT),
        *_texts("sums", "gauges", "describes", "by", "narrow"),
        *_flags("gauge", "histogram", "tree", "whole_nodes", "shows_contents"),
    ),
)
SHARED = SchemaField(
    "shared",
    "object",
    fields=(
        SchemaField("columns", "list of object", fields=_COLUMN),
        SchemaField("parameters", "list of object", fields=_PARAMETER),
    ),
)
"""Columns and parameters of several gadgets."""
