"""Reads a gadget's YAML.

A mistake that is not found here shows up as a wrong table. So whatever the schema cannot express is checked
when the gadget is made from the fields.
"""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import get_args

from kubectl_gadget.gadgets.schema import (
    HISTOGRAM_SUMS,
    NANOSECONDS,
    About,
    AgentSide,
    Answer,
    Column,
    Field,
    Gadget,
    Library,
    Parameter,
    ProgramChoice,
    Quotient,
    RecordLayout,
    RowView,
    Show,
    TableDefaults,
    TotalFields,
    Within,
    field_of,
)
from kubectl_gadget.yaml_files import Example, own_schema, read_yaml
from kubectl_gadget.yaml_reader import Part, one_of, read_mapping

_CHOICES = {
    "where columns are shown": get_args(Show),
    "kinds of gadgets": get_args(Answer),
    "units of time": NANOSECONDS,
}
_SCHEMA = Path(__file__).with_name("gadget_schema.yaml")
GADGET, SHARED = (own_schema(_SCHEMA, name, _CHOICES) for name in ("gadget", "shared"))
"""SHARED: of a file with columns and parameters of several gadgets."""
EVERY_GADGET = Path(__file__).parent / "every_gadget.yaml"
HISTOGRAM = Path(__file__).parent / "histogram.yaml"
_DEFAULTS = {"bool": (bool, "true or false"), "int": (int, "a whole number"), "duration": (int, "a whole number")}
"""By the type of a parameter, if it is not a text: the type of its default."""
_WIDEST = 200
_ANSWERS: tuple[Answer, ...] = get_args(Answer)


def read_description(path: Path) -> Gadget:
    """The gadget that `path` describes; its name is the file's. Raises UsageError."""
    return read_yaml(path, lambda text: describe(path, path.stem, text))


def describe(path: Path, name: str, text: str) -> Gadget:
    """The gadget that YAML describes, without what only its object says. Its records have the structs' names, and only
    those fields for whose values the YAML has names; there are no globals, and only the columns and parameters that
    the YAML lists. `path` is used in errors. Raises UsageError."""
    top = read_mapping(str(path), text, GADGET)
    programs = tuple(map(_programs, top.parts("programs")))
    histogram = top.flag("histogram")
    view = _view(top)
    without_c = view is not None or top.text("kind") == "recorder"
    without_variable = {choice.when[0] for choice in programs if choice.when}
    return Gadget(
        name=name,
        command=tuple(top.text("command").split()),
        about=_about(top),
        record=RecordLayout(top.text("record"), 0, _named_fields(top)),
        columns=_columns(top),
        agent=AgentSide(
            programs=programs,
            libraries=tuple(Library(item.texts("files"), item.value("functions")) for item in top.parts("libraries")),
            sampler=top.text("sampler"),
        ),
        parameters=tuple(
            _parameter(item, without_c or item.text("type") == "functions" or item.text("name") in without_variable)
            for item in top.parts("parameters")
        ),
        kind=one_of(top.text("kind"), _ANSWERS, "stream"),
        view=view,
        totals=_totals(top, histogram),
        table=TableDefaults(**{"sort": "-count" if histogram else ""} | top.values("sort", "by", "tree", "narrow")),
        whole_nodes=top.flag("whole_nodes"),
        shows_contents=top.flag("shows_contents"),
        within=Within(**part.values()) if (part := top.part("within")) else None,
    )


def _about(top: Part) -> About:
    examples = tuple(Example(**item.values()) for item in top.parts("examples"))
    if not examples:
        top.fail("examples", "is empty: help pages begin with them")
    return About(top.text("group"), top.text("summary"), top.text("description").strip(), examples)


def _view(top: Part) -> RowView | None:
    name, sent = top.text("view"), top.text("sent")
    if bool(name) != bool(sent):
        top.fail("sent" if name else "view", "is missing: a view turns what is `sent` into rows (`record`)")
    return RowView(name, RecordLayout(sent, 0, ())) if name else None


def _totals(top: Part, histogram: bool) -> TotalFields:
    return TotalFields(
        sums=(*top.texts("sums"), *(HISTOGRAM_SUMS if histogram else ())),
        quotients=(
            *(Quotient(**item.values()) for item in top.parts("quotients")),
            *([Quotient("mean", "total", "count")] if histogram else []),
        ),
        histogram=histogram,
        **top.values("gauges", "describes", "gauge", "weight"),
    )


def other_columns(gadget: Gadget, fields: Collection[str]) -> tuple[Column, ...]:
    """Shared columns that this gadget does not list. `fields` are its record's: a total does not begin with a
    gadget_record, so it lacks some of them."""
    named = {column.name for column in gadget.columns}
    return tuple(
        replace(column, show="wide") if column.show == "default" else column
        for column in shared_columns()
        if column.name not in named and (gadget.kind not in ("top", "profile") or field_of(column) in fields)
    )


def shared_columns() -> tuple[Column, ...]:
    """Columns that every gadget has, if its record has their field."""
    return tuple(_column(item) for item in _shared(EVERY_GADGET).parts("columns"))


def shared_parameters() -> tuple[Parameter, ...]:
    """Parameters that every gadget has, if its object has their variable."""
    return tuple(_parameter(item) for item in _shared(EVERY_GADGET).parts("parameters"))


def _shared(path: Path) -> Part:
    return read_yaml(path, lambda text: read_mapping(str(path), text, SHARED))


def _named_fields(top: Part) -> tuple[Field, ...]:
    """The fields for whose values columns give names; their offsets are not set."""
    found: dict[str, Field] = {}
    for item in top.parts("columns", short="name"):
        values, flags = _names_of_numbers(item, "values"), _names_of_numbers(item, "flags")
        if values and flags:
            item.fail("flags", "cannot be used with values: a number is either one of several values or a set of flags")
        if values or flags:
            name = item.text("field", item.text("name"))
            found[name] = Field(name, 0, 0, "", values=values, flags=flags)
    return tuple(found.values())


def _names_of_numbers(item: Part, key: str) -> tuple[tuple[int, str], ...]:
    names = item.value(key)
    if names == {}:
        item.fail(key, "is empty")
    for number, name in (names or {}).items():
        if type(number) is not int or not isinstance(name, str):
            item.fail(key, f"must map numbers to names, such as {{1: open, 2: closed}}; it has {number!r}: {name!r}")
    return tuple((names or {}).items())


def _programs(item: Part) -> ProgramChoice:
    if not all(item.value("any_of")) or not item.value("any_of"):
        item.fail("any_of", "must be a list of lists of programs, best first: [[a, b], [c]]")
    if item.flag("optional") and not item.text("purpose"):
        item.fail("purpose", "is missing: it says what is not seen without these programs")
    pairs = {name: "true" if word is True else word for name, word in (item.value("when") or {}).items()}
    if len(pairs) > 1 or not all(isinstance(text, str) for pair in pairs.items() for text in pair):
        item.fail("when", "must name one parameter and one word: {hook: file_open}, or true")
    return ProgramChoice(**item.values() | {"when": next(iter(pairs.items()), None)})


def _parameter(item: Part, needs_no_variable: bool = False) -> Parameter:
    kind = item.text("type")
    if ("unit" in item) != (kind == "duration"):
        item.fail("unit", "is only for durations" if "unit" in item else "is missing: a duration needs one")
    for bound in ("minimum", "maximum"):
        if bound in item and kind not in ("int", "duration"):
            item.fail(bound, "is only for numbers and durations")
    if ("column" in item) != ("test" in item):
        item.fail("test" if "column" in item else "column", "is missing: column and test need each other")
    if not item.text("variable") and not needs_no_variable:
        item.fail("variable", "is missing: it says what the parameter sets")
    type_, wanted = _DEFAULTS.get(kind, (str, "a text"))
    if "default" in item and type(item.value("default")) is not type_:
        item.fail("default", f"must be {wanted}, not {item.text('default')}")
    return Parameter(**{"variable": ""} | item.values())


def _columns(top: Part) -> tuple[Column, ...]:
    """The gadget's columns in its order, then the columns of histograms that it does not list."""
    shared = {column.name: column for column in shared_columns()}
    columns: dict[str, Column] = {}
    items = top.parts("columns", short="name")
    if not items:
        top.fail("columns", "is empty")
    for item in items:
        name = item.text("name")
        if name in columns:
            item.fail("name", f"is defined twice: {name}")
        columns[name] = _column(item, shared.get(name))
    if top.flag("histogram"):
        of_histograms = map(_column, _shared(HISTOGRAM).parts("columns"))
        columns |= {column.name: column for column in of_histograms if column.name not in columns}
    return tuple(columns.values())


def _column(item: Part, like: Column | None = None) -> Column:
    name = item.text("name")
    if like is None:
        if "description" not in item:
            item.fail("name", f"{name} is not a column of every gadget; it needs a description")
        like = Column(name, name.upper().replace("_", " "), name, "")
    column = replace(like, **item.values("title", "field", "description", "show", "width", "align", "stretch"))
    if not 1 <= column.width <= _WIDEST:
        item.fail("width", f"must be 1 to {_WIDEST}, not {column.width}")
    return column
