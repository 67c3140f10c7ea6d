"""Reads a gadget's YAML and reports errors with their exact place.

The trap: YAML turns `no`, `on` and `0755` into something else, so each value's type is checked and never converted.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, get_args

import yaml

from kubectl_gadget.catalogue.consistency import field_of
from kubectl_gadget.errors import UsageError
from kubectl_gadget.events.schema import (
    HISTOGRAM_SUMS,
    NANOSECONDS,
    About,
    AgentSide,
    Answer,
    Column,
    Example,
    Field,
    Gadget,
    Library,
    Parameter,
    ProgramChoice,
    Quotient,
    Record,
    RowView,
    Show,
    TableDefaults,
    TotalFields,
)
from kubectl_gadget.yaml_files import read_yaml

EVERY_GADGET = Path(__file__).parent / "every_gadget.yaml"
HISTOGRAM = Path(__file__).parent / "histogram.yaml"
_TYPES = {
    "bool": bool,
    "int": int,
    "string": str,
    "syscalls": str,
    "pcap": str,
    "address": str,
    "functions": str,
    "paths": str,
    "duration": int,
}
_KIND_NAMES = {str: "a text", bool: "true or false", int: "a whole number", list: "a list", dict: "a mapping"}
_GADGET_KEYS = (
    *("command", "group", "summary", "description", "record", "view", "sent", "programs", "parameters", "columns"),
    *("examples", "kind", "sort", "sums", "describes", "quotients", "gauge", "weight", "by", "histogram", "tree"),
    *("libraries", "sampler", "gauges", "narrow", "whole_nodes", "shows_contents"),
)
_COLUMN_KEYS = ("name", "title", "field", "description", "show", "width", "align", "stretch", "values", "flags")
_PARAMETER_KEYS = (
    *("name", "type", "description", "variable", "default", "column", "test"),
    *("words", "choices", "names", "unit", "shows"),
)


class Part:
    """A mapping in a YAML file and its place there: `gadgets/trace_open.yaml: columns[3].width`."""

    def __init__(self, path: Path, place: str, value: object, known: tuple[str, ...]) -> None:
        self.path, self.place = path, place
        if not isinstance(value, dict):
            self.fail("", f"must be a mapping, not {value!r}")
        self.value: Mapping[str, Any] = value
        for key in value:
            if key not in known:
                self.fail(str(key), f"is not a known key; expected one of {', '.join(known)}")

    def fail(self, key: str, reason: str) -> NoReturn:
        """Raises UsageError with file, key and reason."""
        place = ".".join(part for part in (self.place, key) if part)
        raise UsageError(f"{self.path}: {place or 'the file'} {reason}")

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        """The value of `key`; `default` when it is not set. Fails when the value has another type."""
        value = self.value.get(key)
        if value is None:
            return default
        # To Python bool is an int, but not to people.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self.fail(key, f"must be {_KIND_NAMES[kind]}, not {value!r}")
        return value

    def need(self, key: str, kind: type) -> Any:
        """The value of `key`. Fails when it is missing or empty."""
        value = self.get(key, kind)
        if value is None or value in ("", [], {}):
            self.fail(key, "is missing")
        return value

    def one_of(self, key: str, choices: tuple[str, ...], default: Any = None) -> Any:
        """The value of `key`, which must be one of `choices`."""
        value = self.get(key, str, default)
        if value is not None and value not in choices:
            self.fail(key, f"must be {' or '.join(choices)}, not {value!r}")
        return value

    def parts(self, key: str, known: tuple[str, ...]) -> list["Part"]:
        """The mappings of the list at `key`."""
        items = self.get(key, list, [])
        return [Part(self.path, f"{key}[{index}]", item, known) for index, item in enumerate(items)]


def read_description(path: Path) -> Gadget:
    """The gadget that `path` describes; its name is the file's. Raises UsageError."""
    return describe(path, path.stem, read_yaml(path, yaml.safe_load))


def describe(path: Path, name: str, value: object) -> Gadget:
    """The gadget that the parsed YAML `value` describes, without what only its object says. Its records have the
    structs' names, and only those fields for whose values the YAML has names; there are no globals, and only the
    columns and parameters that the YAML lists. `path` is used in errors. Raises UsageError."""
    top = Part(path, "", value, _GADGET_KEYS)
    programs = _programs(top)
    histogram = top.get("histogram", bool, False)
    kind = top.one_of("kind", get_args(Answer), "stream")
    view = _view(top)
    without_c = view is not None or kind == "recorder"
    without_variable = {choice.when[0] for choice in programs if choice.when}
    return Gadget(
        name=name,
        command=tuple(top.need("command", str).split()),
        about=_about(top),
        record=Record(top.need("record", str), 0, _named_fields(top)),
        columns=_columns(top),
        agent=AgentSide(
            programs=programs,
            libraries=tuple(_library(item) for item in top.parts("libraries", ("files", "functions"))),
            sampler=top.get("sampler", str, ""),
        ),
        parameters=tuple(
            _parameter(
                item, without_c or item.get("type", str) == "functions" or item.get("name", str) in without_variable
            )
            for item in top.parts("parameters", _PARAMETER_KEYS)
        ),
        kind=kind,
        view=view,
        totals=_totals(top, histogram),
        table=TableDefaults(
            sort=top.get("sort", str, "-count" if histogram else ""),
            by=_names(top, "by"),
            tree=top.get("tree", bool, False),
            narrow=_names(top, "narrow"),
        ),
        whole_nodes=top.get("whole_nodes", bool, False),
        shows_contents=top.get("shows_contents", bool, False),
    )


def _about(top: Part) -> About:
    examples = tuple(
        Example(item.need("command", str), item.need("description", str))
        for item in top.parts("examples", ("command", "description"))
    )
    if not examples:
        top.fail("examples", "is missing: help pages begin with them")
    description = top.get("description", str, "").strip()
    return About(top.need("group", str), top.need("summary", str), description, examples)


def _view(top: Part) -> RowView | None:
    name, sent = top.get("view", str, ""), top.get("sent", str, "")
    if bool(name) != bool(sent):
        top.fail("sent" if name else "view", "is missing: a view turns what is `sent` into rows (`record`)")
    return RowView(name, Record(sent, 0, ())) if name else None


def _totals(top: Part, histogram: bool) -> TotalFields:
    return TotalFields(
        sums=(*_names(top, "sums"), *(HISTOGRAM_SUMS if histogram else ())),
        gauges=_names(top, "gauges"),
        describes=_names(top, "describes"),
        quotients=(
            *(_quotient(item) for item in top.parts("quotients", ("field", "of", "per", "times"))),
            *([Quotient("mean", "total", "count")] if histogram else []),
        ),
        gauge=top.get("gauge", bool, False),
        weight=top.get("weight", str, ""),
        histogram=histogram,
    )


def other_columns(gadget: Gadget, fields: Collection[str]) -> tuple[Column, ...]:
    """Shared columns that this gadget does not list. `fields` are those of its record: a total does not begin with a
    gadget_record, so it lacks some of them."""
    named = {column.name for column in gadget.columns}
    return tuple(
        replace(column, show="wide") if column.show == "default" else column
        for column in shared_columns()
        if column.name not in named and (gadget.kind not in ("top", "profile") or field_of(column) in fields)
    )


def shared_columns() -> tuple[Column, ...]:
    """Columns that every gadget has, if its record has their field."""
    return tuple(_column(item) for item in _every_gadget().parts("columns", _COLUMN_KEYS))


def shared_parameters() -> tuple[Parameter, ...]:
    """Parameters that every gadget has, if its object has their variable."""
    return tuple(_parameter(item) for item in _every_gadget().parts("parameters", _PARAMETER_KEYS))


def _every_gadget() -> Part:
    return Part(EVERY_GADGET, "", read_yaml(EVERY_GADGET, yaml.safe_load), ("columns", "parameters"))


def _histogram_columns() -> list[Column]:
    top = Part(HISTOGRAM, "", read_yaml(HISTOGRAM, yaml.safe_load), ("columns",))
    return [_column(item) for item in top.parts("columns", _COLUMN_KEYS)]


def _names(top: Part, key: str) -> tuple[str, ...]:
    names = top.get(key, list, [])
    if not all(isinstance(name, str) for name in names):
        top.fail(key, "must be a list of texts")
    return tuple(names)


def _named_fields(top: Part) -> tuple[Field, ...]:
    """The fields for whose values columns give names; their offsets are not set."""
    found: dict[str, Field] = {}
    for index, value in enumerate(top.need("columns", list)):
        if not isinstance(value, dict):
            continue
        item = Part(top.path, f"columns[{index}]", value, _COLUMN_KEYS)
        values, flags = _names_of_numbers(item, "values"), _names_of_numbers(item, "flags")
        if values and flags:
            item.fail("flags", "cannot be used with values: a number is either one of several values or a set of flags")
        if values or flags:
            name = item.get("field", str, item.need("name", str))
            found[name] = Field(name, 0, 0, "", values=values, flags=flags)
    return tuple(found.values())


def _names_of_numbers(item: Part, key: str) -> tuple[tuple[int, str], ...]:
    names = item.need(key, dict) if key in item.value else {}
    for number, name in names.items():
        if type(number) is not int or not isinstance(name, str):
            item.fail(key, f"must map numbers to names, such as {{1: open, 2: closed}}; it has {number!r}: {name!r}")
    return tuple(names.items())


def _quotient(item: Part) -> Quotient:
    return Quotient(item.need("field", str), item.need("of", str), item.need("per", str), item.get("times", int, 1))


def _library(item: Part) -> Library:
    functions: dict[str, Any] = item.need("functions", dict)
    for name, programs in functions.items():
        if not isinstance(programs, list) or not all(isinstance(program, str) for program in programs):
            item.fail(f"functions.{name}", "must be a list of programs")
    return Library(_names(item, "files"), {name: tuple(programs) for name, programs in functions.items()})


def _programs(top: Part) -> tuple[ProgramChoice, ...]:
    choices = []
    for item in top.parts("programs", ("any_of", "optional", "purpose", "aside", "when")):
        sets = item.need("any_of", list)
        if not all(
            isinstance(names, list) and names and all(isinstance(name, str) for name in names) for names in sets
        ):
            item.fail("any_of", "must be a list of lists of programs, best first: [[a, b], [c]]")
        optional = item.get("optional", bool, False)
        purpose = item.get("purpose", str, "")
        if optional and not purpose:
            item.fail("purpose", "is missing: it says what is not seen without these programs")
        choices.append(
            ProgramChoice(tuple(map(tuple, sets)), optional, purpose, item.get("aside", bool, False), _when(item))
        )
    return tuple(choices)


def _when(item: Part) -> tuple[str, str] | None:
    pairs = {name: "true" if word is True else word for name, word in item.get("when", dict, {}).items()}
    if len(pairs) > 1 or not all(isinstance(text, str) for pair in pairs.items() for text in pair):
        item.fail("when", "must name one parameter and one word: {hook: file_open}, or true")
    return next(iter(pairs.items()), None)


def _parameter(item: Part, needs_no_variable: bool = False) -> Parameter:
    kind = item.one_of("type", tuple(_TYPES))
    if kind is None:
        item.fail("type", "is missing")
    name = item.need("name", str)
    unit = item.one_of("unit", tuple(NANOSECONDS)) or ""
    if bool(unit) != (kind == "duration"):
        item.fail("unit", "is only for durations" if unit else "is missing: a duration needs one")
    column = item.get("column", str)
    test = item.one_of("test", ("equal", "prefix"))
    if (column is None) != (test is None):
        item.fail("column" if column is None else "test", "is missing: column and test need each other")
    return Parameter(
        name=name,
        type=kind,
        description=item.need("description", str),
        variable=item.get("variable", str, "") if needs_no_variable else item.need("variable", str),
        default=item.get("default", _TYPES[kind]),
        column=column,
        test=test,
        words=_names(item, "words"),
        choices=_names(item, "choices"),
        names=item.one_of("names", ("signal", "capability", "errno")) or "",
        unit=unit,
        shows=_names(item, "shows"),
    )


def _columns(top: Part) -> tuple[Column, ...]:
    """The gadget's columns in its order, then the columns of histograms that it does not list."""
    shared = {column.name: column for column in shared_columns()}
    columns: dict[str, Column] = {}
    for index, value in enumerate(top.need("columns", list)):
        item = Part(top.path, f"columns[{index}]", {"name": value} if isinstance(value, str) else value, _COLUMN_KEYS)
        name = item.need("name", str)
        if name in columns:
            item.fail("name", f"is defined twice: {name}")
        if isinstance(value, str) and name not in shared:
            item.fail("", f"{name} is not a column of every gadget; it needs a description")
        columns[name] = _column(item, shared.get(name))
    if top.get("histogram", bool, False):
        columns |= {column.name: column for column in _histogram_columns() if column.name not in columns}
    return tuple(columns.values())


def _column(item: Part, like: Column | None = None) -> Column:
    name = item.need("name", str)
    if like is None:
        like = Column(name, name.upper().replace("_", " "), name, item.need("description", str))
    width = item.get("width", int, like.width)
    if not 1 <= width <= 200:
        item.fail("width", f"must be 1 to 200, not {width}")
    return Column(
        name=name,
        title=item.get("title", str, like.title),
        field=item.get("field", str, like.field),
        description=item.get("description", str, like.description),
        show=item.one_of("show", get_args(Show), like.show),
        width=width,
        align=item.one_of("align", ("left", "right"), like.align),
        stretch=item.get("stretch", bool, like.stretch),
    )
