"""Parses YAML, checks it against a schema, and reports errors with file, line, column and field.

All errors are collected, so that a user corrects a file once. YAML turns `no`, `on` and `0755` into something
else, and `1:30` into 90; so scalars keep the text as written, and their tag gives YAML's type.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import yaml

from kubectl_gadget.errors import UsageError
from kubectl_gadget.wording import did_you_mean
from kubectl_gadget.yaml_files import Place, SchemaField, parse_yaml, safe_loader

Choice = TypeVar("Choice", bound=str)

_SHOWN = 20
_LONGEST = 500
"""The longest message about one problem, which may quote the file, in characters."""
_LONGEST_VALUE = 40
MOST_REPEATED = 100_000
_MERGE = "<<"
_MAPPING, _LIST, _SCALAR = "a mapping", "a list", "a single value"
_NULL, _FLAG, _NUMBER, _TEXT = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "str"))
_SCALARS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "text": ((_TEXT,), "a text"),
    "word": ((_TEXT,), "a text"),
    "text or number": ((_TEXT, _NUMBER), "a text"),
    "flag": ((_FLAG,), "true or false"),
    # Names of errors and signals are allowed; a quoted number is as clear as one without quotes.
    "number": ((_NUMBER, _TEXT), "a whole number"),
    "integer": ((_NUMBER,), "a whole number"),
    "value": ((), ""),
}
"""By kind: YAML's types that are accepted, all when there are none, and what it has to be, for people."""
_FORMS = {
    "integer": re.compile(r"[-+]?(0|[1-9][0-9]{0,19}|0x[0-9a-fA-F]{1,16})"),
    "flag": re.compile("true|false|yes|no|on|off", re.IGNORECASE),  # !!bool before it accepts any text
}
_LOADER: type = safe_loader()
_Entries = Mapping[str, tuple[yaml.Node, yaml.Node]]
"""By the text of their keys: keys and values."""


class WrongYaml(UsageError):
    """One error in a file; the enclosing object cannot be read, the rest of the file may be."""

    def __init__(self, place: Place, text: str) -> None:
        super().__init__(f"{place} {text if len(text) <= _LONGEST else f'{text[:_LONGEST]}…'}")
        self.place = place


class Problems:
    """The errors found so far. `explained_by` is the command that describes the fields of the schema, if any."""

    def __init__(self, schema: SchemaField, explained_by: str = "") -> None:
        self.found: list[WrongYaml] = []
        self._schema, self._explained_by = schema, explained_by

    def add(self, place: Place, text: str) -> None:
        self.found.append(WrongYaml(place, text))

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Adds the error that ends the block."""
        try:
            yield
        except WrongYaml as error:
            self.found.append(error)

    def raise_if_any(self) -> None:
        """Raises UsageError with all errors, in the order of their lines."""
        if not self.found:
            return
        found = sorted(self.found, key=lambda one: (one.place.file, one.place.line, one.place.column))
        lines = list(dict.fromkeys(map(str, found)))
        if len(lines) > _SHOWN:
            lines[_SHOWN:] = [f"and {len(lines) - _SHOWN} more"]
        field = next(filter(None, (_known(problem.place.path, self._schema) for problem in found)), "")
        remedy = f"{self._explained_by}{field}".rstrip(" .") if self._explained_by else None
        raise UsageError("\n       ".join(lines), remedy)


@dataclass(frozen=True)
class Scalar:
    """A single value, as written."""

    text: str
    place: Place


def one_of(text: str, choices: Sequence[Choice], default: Choice) -> Choice:
    """The choice equal to `text`, which the schema has checked; `default` when there is none."""
    return next((choice for choice in choices if choice == text), default)


class Part:
    """A mapping that has been checked against the schema. The methods return values of the kind that the schema
    gives."""

    def __init__(self, place: Place, entries: _Entries) -> None:
        self.place, self._entries = place, entries

    def at(self, key: str) -> Place:
        """The place of a field's value; the mapping's place when it is not set."""
        return inside(self.place, key, self._entries[key][1] if key in self else None)

    def at_key(self, key: str) -> Place:
        """The place of a field's name."""
        return inside(self.place, key, self._entries[key][0])

    def fail(self, key: str, text: str) -> NoReturn:
        """Raises WrongYaml with the place of a field."""
        raise WrongYaml(self.at(key), text)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def names(self) -> Iterator[str]:
        """The names of the fields that are set."""
        return iter(self._entries)

    def nodes(self, key: str) -> list[yaml.Node]:
        """The parsed field in a list; an empty list when it is not set."""
        return [self._entries[key][1]] if key in self else []

    def text(self, key: str, default: str = "") -> str:
        return str(self._entries[key][1].value) if key in self else default

    def flag(self, key: str, default: bool = False) -> bool:
        return self.text(key).lower() in ("true", "yes", "on") if key in self else default

    def value(self, key: str) -> Any:
        """The value in Python's types, with tuples as lists; None when it is not set."""
        return _plain(self._entries[key][1]) if key in self else None

    def values(self, *keys: str) -> dict[str, Any]:
        """Return the values of these fields, or of all, that are set, in Python's types."""
        return {key: self.value(key) for key in keys or self.names() if key in self}

    def scalar(self, key: str) -> Scalar:
        """A single value and its place; an empty one when it is not set."""
        return Scalar(self.text(key), self.at(key))

    def scalars(self, key: str) -> list[Scalar]:
        """A list of single values; a single value counts as a list of one."""
        place = self.at(key)
        return [
            Scalar(item.value, inside(place, index, item))
            for node in self.nodes(key)
            for index, item in ([(None, node)] if isinstance(node, yaml.ScalarNode) else enumerate(node.value))
        ]

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(scalar.text for scalar in self.scalars(key))

    def part(self, key: str) -> "Part | None":
        return Part(self.at(key), _entries(self._entries[key][1])) if key in self else None

    def parts(self, key: str, short: str = "") -> list["Part"]:
        """A list of mappings. `short`: the field that a plain text in the place of a mapping sets."""
        place = self.at(key)
        return [
            Part(
                inside(place, index, item),
                {short: (item, item)} if isinstance(item, yaml.ScalarNode) else _entries(item),
            )
            for node in self.nodes(key)
            for index, item in enumerate(node.value)
        ]

    def named_parts(self, key: str) -> dict[str, "Part"]:
        """A mapping of free keys to mappings."""
        whole = self.part(key)
        return {} if whole is None else {name: part for name in whole.names() if (part := whole.part(name))}

    def text_map(self, key: str) -> dict[str, str]:
        """A mapping of free keys to texts."""
        whole = self.part(key)
        return {} if whole is None else {name: whole.text(name) for name in whole.names()}


def read_mapping(file: str, text: str, schema: SchemaField) -> Part:
    """The one document of a file that is not of Kubernetes; an empty one counts as {}. Raises UsageError with all
    errors."""
    start = yaml.Mark(file, 0, 0, 0, None, 0)
    node = parse_yaml(file, text, lambda: _limited(file, yaml.compose(text, Loader=_LOADER)))
    node = node or yaml.MappingNode("", [], start, start)
    problems = Problems(schema)
    check(node, schema, _at(file, node), problems)
    problems.raise_if_any()
    return Part(_at(file, node), _entries(node))


def documents(file: str, text: str) -> list[yaml.Node]:
    """The YAML documents of a file; empty ones are left out. Raises UsageError when it is not valid YAML."""
    nodes = parse_yaml(file, text, lambda: [_limited(file, node) for node in yaml.compose_all(text, _LOADER)])
    return [node for node in nodes if node is not None and node.tag != _NULL]


def _limited(file: str, node: yaml.Node | None) -> yaml.Node | None:
    """The document, unless a few lines of aliases stand for millions of values. Raises WrongYaml."""
    known: dict[int, float] = {}
    if node is not None and _size(node, known) > len(known) + MOST_REPEATED:
        raise WrongYaml(_at(file, node), "repeats too much by aliases (*name): write what they stand for")
    return node


def _size(node: yaml.Node, known: dict[int, float]) -> float:
    """The number of nodes, with those that aliases repeat; infinite when one contains itself."""
    if id(node) not in known:
        known[id(node)] = math.inf
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        inner = node.value if isinstance(node, yaml.SequenceNode) else [each for pair in pairs for each in pair]
        known[id(node)] = 1 + sum([_size(each, known) for each in inner])
    return known[id(node)]


def items_of(file: str, node: yaml.Node) -> Iterator[tuple[Place, yaml.Node]]:
    """The objects of a document: itself, or the items of a List, as written by `kubectl get -o yaml`."""
    entries = _entries(node)
    kind, items = (entries[key][1] if key in entries else None for key in ("kind", "items"))
    if kind is not None and str(kind.value).endswith("List") and isinstance(items, yaml.SequenceNode):
        for index, item in enumerate(items.value):
            yield _at(file, item, f"items[{index}]"), item
    else:
        yield _at(file, node), node


def check(node: yaml.Node, field: SchemaField, place: Place, problems: Problems) -> Part | None:
    """The mapping at `place` when it fits the schema of `field`, else None; errors are added to `problems`."""
    before = len(problems.found)
    _check(node, field.kind, field, place, problems)
    return Part(place, _entries(node)) if len(problems.found) == before else None


def peek(node: yaml.Node, key: str) -> str:
    """The text of a field in a mapping that has not been checked yet; empty when there is none."""
    entry = _entries(node).get(key)
    return str(entry[1].value) if entry and isinstance(entry[1], yaml.ScalarNode) else ""


def _entries(node: yaml.Node) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    """A mapping's fields without those that are null, since null means not set."""
    if not isinstance(node, yaml.MappingNode):
        return {}
    return {str(key.value): (key, value) for key, value in node.value if value.tag != _NULL}


def _plain(node: yaml.Node) -> Any:
    def frozen(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(map(frozen, value))
        return {key: frozen(each) for key, each in value.items()} if isinstance(value, dict) else value

    return frozen(constructed(node))


def constructed(node: yaml.Node) -> Any:
    """A document in Python's types. Raises yaml.YAMLError, which `parse_yaml` converts."""
    return _Constructor().construct_document(node)


class _Constructor(yaml.constructor.SafeConstructor):
    """Raises the same error, with a place, for each value that does not fit its type."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> object:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, ArithmeticError, AttributeError):
            what = f"{str(node.value)[:_LONGEST_VALUE]!r} is not a valid {node.tag.rpartition(':')[2]}"
            what += ": write it in quotes if it is a text"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark) from None


def _known(path: str, schema: SchemaField) -> str:
    """The schema field for the longest known part of a path such as `items[0].spec.kprobes[1].calll`."""
    field, names = schema, list[str]()
    for step in re.sub(r"^items\[\d+\]\.?|\[\d+\]", "", path).split("."):
        inner = next((inner for inner in field.fields if inner.name == step), None)
        if inner is None:
            break
        field = inner
        names.append(step)
    return ".".join(names)


def _at(file: str, node: yaml.Node, path: str = "") -> Place:
    return Place(file, node.start_mark.line + 1, path, node.start_mark.column + 1)


def inside(place: Place, key: str | int | None, node: yaml.Node | None) -> Place:
    """The place of an entry or an item inside another place; without a node, it has the other place's line."""
    step = "" if key is None else f"[{key}]" if isinstance(key, int) else f".{key}" if place.path else key
    if node is None:
        return Place(place.file, place.line, place.path + step, place.column)
    return _at(place.file, node, place.path + step)


def _check(node: yaml.Node, kind: str, field: SchemaField, place: Place, problems: Problems) -> None:
    of = kind.partition(" of ")[2]
    if kind == "unsupported":
        problems.add(place, f"is not supported: {field.description}")
    elif kind == "object":
        if not (field.short and node.tag == _TEXT):
            _check_object(node, field.fields, place, problems)
    elif kind == "values":
        _check(node, "value" if isinstance(node, yaml.ScalarNode) else "list of value", field, place, problems)
    elif kind.startswith("list of "):
        for inner, item in _each(node, place, problems):
            _check(item, of, field, inner, problems)
    elif kind.startswith("map of "):
        for name, _, item in _each_entry(node, place, problems):
            if item.tag != _NULL or of in (*_SCALARS, "values"):
                _check(item, of, field, inside(place, name, item), problems)
    elif kind != "anything":
        _check_scalar(node, kind, field, place, problems)


def _check_object(node: yaml.Node, fields: Sequence[SchemaField], place: Place, problems: Problems) -> None:
    known = {field.name: field for field in fields}
    for name, key, value in _each_entry(node, place, problems):
        if name not in known:
            problems.add(inside(place, name, key), f"is not known{did_you_mean(name, known)}")
        elif value.tag != _NULL:
            _check(value, known[name].kind, known[name], inside(place, name, value), problems)
    if isinstance(node, yaml.MappingNode):
        present = _entries(node)
        for field in fields:
            if field.required and field.name not in present:
                problems.add(place, f"lacks {field.name}")


def _check_scalar(node: yaml.Node, kind: str, field: SchemaField, place: Place, problems: Problems) -> None:
    tags, wanted = _SCALARS[kind]
    if not isinstance(node, yaml.ScalarNode):
        problems.add(place, f"must be {wanted or _SCALAR}, not {_kind_of(node)}")
    elif node.tag == _NULL:
        problems.add(place, "is empty")
    elif (tags and node.tag not in tags) or (kind in _FORMS and not _FORMS[kind].fullmatch(node.value)):
        is_quoted = node.style and kind in _FORMS and _FORMS[kind].fullmatch(node.value)
        quotes = ": write it in quotes" if tags == (_TEXT,) else ": remove the quotes" if is_quoted else ""
        problems.add(place, f"must be {wanted}, not {repr(node.value) if is_quoted else node.value}{quotes}")
    elif field.required and kind == field.kind and not node.value:
        problems.add(place, "is empty")
    elif kind == "text" and field.choices and node.value not in field.choices:
        problems.add(place, f"{node.value!r} is not known{did_you_mean(node.value, field.choices)}")


def _each(node: yaml.Node, place: Place, problems: Problems) -> Iterator[tuple[Place, yaml.Node]]:
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield inside(place, index, item), item
    else:
        problems.add(place, f"must be {_LIST}, not {_kind_of(node)}")


def _each_entry(node: yaml.Node, place: Place, problems: Problems) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
    """The keys of a mapping, as texts and as nodes, and their values."""
    if not isinstance(node, yaml.MappingNode):
        problems.add(place, f"must be {_MAPPING}, not {_kind_of(node)}")
        return
    seen: set[str] = set()
    for key, value in node.value:
        inner = inside(place, str(key.value) if isinstance(key, yaml.ScalarNode) else None, key)
        if not isinstance(key, yaml.ScalarNode):
            problems.add(inner, f"has {_kind_of(key)} as a key, which must be {_SCALAR}")
        elif key.value in seen:
            problems.add(inner, "is set twice")
        elif key.value == _MERGE:
            problems.add(inner, "merges another mapping, which is not supported: write its fields here")
        else:
            seen.add(key.value)
            yield key.value, key, value


def _kind_of(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return _MAPPING
    return _LIST if isinstance(node, yaml.SequenceNode) else repr(node.value)
