"""Parses YAML with line numbers, checks it against the schema, and reports errors with their place.

All errors are collected, so that a user corrects a file once. The trap: YAML turns `no`, `on` and `0755` into something
else, and `1:30` into 90; so scalars keep the text as written, and their tag gives YAML's type.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeVar

import yaml

from kubectl_gadget.errors import UsageError
from kubectl_gadget.yaml_files import Place, parse_yaml
from kubectl_gadget.yaml_schema import SchemaField

Choice = TypeVar("Choice", bound=str)

_SHOWN = 20
_LONGEST = 500
"""The longest message about one problem, which may quote the file, in characters."""
_MERGE = "<<"
_MAPPING, _LIST, _SCALAR = "a mapping", "a list", "a single value"
_NULL, _FLAG, _NUMBER, _TEXT = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "str"))
_LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class YamlProblem:
    """One error in a file."""

    place: Place
    text: str

    def __str__(self) -> str:
        text = self.text if len(self.text) <= _LONGEST else f"{self.text[:_LONGEST]}…"
        return f"{self.place} {text}"


class WrongYaml(Exception):
    """Raised for one error; the enclosing object cannot be read, the rest of the file may be."""

    def __init__(self, place: Place, text: str) -> None:
        super().__init__(text)
        self.problem = YamlProblem(place, text)


class Problems:
    """The errors found so far, and the schema objects that `policy explain` can describe."""

    def __init__(self, schema: SchemaField, explained_by: str) -> None:
        self.found: list[YamlProblem] = []
        self._schema, self._explained_by = schema, explained_by

    def add(self, place: Place, text: str) -> None:
        """Adds one error."""
        self.found.append(YamlProblem(place, text))

    def raise_if_any(self) -> None:
        """Raises UsageError with all errors, in the order of their lines."""
        if not self.found:
            return
        found = sorted(dict.fromkeys(self.found), key=lambda one: (one.place.file, one.place.line))
        lines = [str(problem) for problem in found]
        if len(lines) > _SHOWN:
            lines[_SHOWN:] = [f"and {len(lines) - _SHOWN} more"]
        field = next(filter(None, (_known(problem.place.path, self._schema) for problem in found)), "")
        raise UsageError("\n       ".join(lines), f"{self._explained_by}{field}".rstrip(" ."))


@dataclass(frozen=True)
class Scalar:
    """A single value, as written."""

    text: str
    place: Place


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean …?` with similar names, or the list of all when it is short; else empty."""
    names = list(known)
    lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(word.lower(), lower, 2, 0.7)
    if close:
        return f"; did you mean {' or '.join(lower[name] for name in close)}?"
    return f"; it is one of {', '.join(names)}" if names and sum(map(len, names)) < 400 else ""


def one_of(text: str, choices: Sequence[Choice], default: Choice) -> Choice:
    """The choice equal to `text`, which the schema has checked; `default` when there is none."""
    return next((choice for choice in choices if choice == text), default)


class Part:
    """A mapping that has been checked against the schema. The methods return values of the type that the schema
    gives."""

    def __init__(self, place: Place, values: Mapping[str, yaml.Node]) -> None:
        self.place, self._values = place, values

    def at(self, key: str) -> Place:
        """The place of a field, whether it is set or not."""
        node = self._values.get(key)
        line = self.place.line if node is None else node.start_mark.line + 1
        return Place(self.place.file, line, _path(self.place, key))

    def fail(self, key: str, text: str) -> NoReturn:
        """Raises WrongYaml with the place of a field."""
        raise WrongYaml(self.at(key), text)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def names(self) -> Iterator[str]:
        """The names of the fields that are set."""
        return iter(self._values)

    def nodes(self, key: str) -> list[yaml.Node]:
        """The parsed field in a list; an empty list when it is not set."""
        return [self._values[key]] if key in self._values else []

    def text(self, key: str, default: str = "") -> str:
        """A text, as written."""
        return str(self._values[key].value) if key in self._values else default

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false."""
        return self.text(key).lower() in ("true", "yes", "on") if key in self._values else default

    def scalar(self, key: str) -> Scalar:
        """A single value and its place; an empty one when it is not set."""
        return Scalar(self.text(key), self.at(key))

    def scalars(self, key: str) -> list[Scalar]:
        """A list of single values; a single value counts as a list of one."""
        node = self._values.get(key)
        if node is None:
            return []
        place = self.at(key)
        if isinstance(node, yaml.ScalarNode):
            return [Scalar(node.value, place)]
        return [Scalar(item.value, inside(place, index, item)) for index, item in enumerate(node.value)]

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(scalar.text for scalar in self.scalars(key))

    def part(self, key: str) -> "Part | None":
        """A mapping."""
        node = self._values.get(key)
        return None if node is None else Part(self.at(key), _entries(node))

    def parts(self, key: str) -> list["Part"]:
        """A list of mappings."""
        node = self._values.get(key)
        if node is None:
            return []
        place = self.at(key)
        return [Part(inside(place, index, item), _entries(item)) for index, item in enumerate(node.value)]

    def named_parts(self, key: str) -> dict[str, "Part"]:
        """A mapping of free keys to mappings."""
        whole = self.part(key)
        if whole is None:
            return {}
        return {name: Part(whole.at(name), _entries(node)) for name, node in whole._values.items()}

    def text_map(self, key: str) -> dict[str, str]:
        """A mapping of free keys to texts."""
        whole = self.part(key)
        return {} if whole is None else {name: whole.text(name) for name in whole.names()}


def documents(file: str, text: str) -> list[yaml.Node]:
    """The YAML documents of a file; empty ones are left out. Raises UsageError when it is not valid YAML."""
    return [node for node in parse_yaml(file, text, lambda: _composed(text)) if node.tag != _NULL]


def _composed(text: str) -> list[yaml.Node]:
    loader = _LOADER(text)
    found = []
    try:
        while loader.check_node():
            found.append(loader.get_node())
    finally:
        loader.dispose()
    return found


def items_of(file: str, node: yaml.Node) -> Iterator[tuple[Place, yaml.Node]]:
    """The objects of a document: itself, or the items of a List, as written by `kubectl get -o yaml`."""
    entries = _entries(node)
    kind = entries.get("kind")
    items = entries.get("items")
    if kind is not None and str(kind.value).endswith("List") and isinstance(items, yaml.SequenceNode):
        for index, item in enumerate(items.value):
            yield Place(file, item.start_mark.line + 1, f"items[{index}]"), item
    else:
        yield Place(file, node.start_mark.line + 1, ""), node


def check(node: yaml.Node, field: SchemaField, place: Place, problems: Problems) -> Part | None:
    """The mapping at `place` when it fits the schema of `field`, else None; errors are added to `problems`."""
    before = len(problems.found)
    _check(node, field, place, problems)
    return Part(place, _entries(node)) if len(problems.found) == before else None


def peek(node: yaml.Node, key: str) -> str:
    """The text of a field in a mapping that has not been checked yet; empty when there is none."""
    value = _entries(node).get(key)
    return str(value.value) if isinstance(value, yaml.ScalarNode) else ""


def _entries(node: yaml.Node) -> dict[str, yaml.Node]:
    """A mapping's fields without those that are null, since null means not set."""
    if not isinstance(node, yaml.MappingNode):
        return {}
    return {str(key.value): value for key, value in node.value if value.tag != _NULL}


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


def inside(place: Place, key: str | int, node: yaml.Node) -> Place:
    """The place of an entry or an item inside another place."""
    return Place(place.file, node.start_mark.line + 1, _path(place, key))


def _path(place: Place, key: str | int) -> str:
    return place.path + (f"[{key}]" if isinstance(key, int) else f".{key}" if place.path else key)


def _check(node: yaml.Node, field: SchemaField, place: Place, problems: Problems) -> None:
    match field.kind:
        case "object":
            _check_object(node, field.fields, place, problems)
        case "objects":
            for inner, item in _each(node, place, problems):
                _check_object(item, field.fields, inner, problems)
        case "object map":
            for inner, item in _each_entry(node, place, problems):
                _check_object(item, field.fields, inner, problems)
        case "text map":
            for inner, item in _each_entry(node, place, problems):
                _check_scalar(item, (_TEXT,), "a text", inner, problems)
        case "texts":
            for inner, item in _each(node, place, problems):
                _check_scalar(item, (_TEXT,), "a text", inner, problems)
        case "values":
            for inner, item in [(place, node)] if isinstance(node, yaml.ScalarNode) else _each(node, place, problems):
                _check_scalar(item, (), "", inner, problems)
        case "unsupported":
            problems.add(place, f"is not supported: {field.description}")
        case "flag":
            _check_scalar(node, (_FLAG,), "true or false", place, problems)
        case "number":
            # Names of errors and signals are allowed; a quoted number is as clear as one without quotes.
            _check_scalar(node, (_NUMBER, _TEXT), "a whole number", place, problems)
        case "text":
            wanted = (_TEXT, _NUMBER) if field.name in ("rateLimit", "pattern") else (_TEXT,)
            if _check_scalar(node, wanted, "a text", place, problems):
                _check_choice(node, field, place, problems)


def _check_object(node: yaml.Node, fields: Sequence[SchemaField], place: Place, problems: Problems) -> None:
    if not isinstance(node, yaml.MappingNode):
        problems.add(place, f"must be {_MAPPING}, not {_kind_of(node)}")
        return
    known = {field.name: field for field in fields}
    seen: set[str] = set()
    for key, value in node.value:
        name = str(key.value) if isinstance(key, yaml.ScalarNode) else _kind_of(key)
        inner = inside(place, name, key)
        if name in seen:
            problems.add(inner, "is set twice")
        elif name == _MERGE:
            problems.add(inner, "merges another mapping, which is not supported: write its fields here")
        elif name not in known:
            problems.add(inner, f"is not known{nearest(name, known)}")
        elif value.tag != _NULL:
            _check(value, known[name], inside(place, name, value), problems)
        seen.add(name)
    present = _entries(node)
    for field in fields:
        if field.required and field.name not in present:
            problems.add(place, f"lacks {field.name}")


def _check_choice(node: yaml.Node, field: SchemaField, place: Place, problems: Problems) -> None:
    written = str(node.value)
    if field.choices and field.name != "operator" and written not in field.choices:
        problems.add(place, f"{written!r} is not known{nearest(written, field.choices)}")


def _check_scalar(node: yaml.Node, tags: Sequence[str], wanted: str, place: Place, problems: Problems) -> bool:
    if not isinstance(node, yaml.ScalarNode):
        problems.add(place, f"must be {wanted or _SCALAR}, not {_kind_of(node)}")
    elif node.tag == _NULL:
        problems.add(place, "is empty")
    elif tags and node.tag not in tags:
        quotes = ": write it in quotes" if tags == (_TEXT,) else ""
        problems.add(place, f"must be {wanted}, not {node.value}{quotes}")
    else:
        return True
    return False


def _each(node: yaml.Node, place: Place, problems: Problems) -> Iterator[tuple[Place, yaml.Node]]:
    if not isinstance(node, yaml.SequenceNode):
        problems.add(place, f"must be {_LIST}, not {_kind_of(node)}")
        return
    for index, item in enumerate(node.value):
        yield inside(place, index, item), item


def _each_entry(node: yaml.Node, place: Place, problems: Problems) -> Iterator[tuple[Place, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        problems.add(place, f"must be {_MAPPING}, not {_kind_of(node)}")
        return
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode):
            yield inside(place, key.value, value), value
        else:
            problems.add(place, f"a key is {_kind_of(key)}")


def _kind_of(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode):
        return _MAPPING
    return _LIST if isinstance(node, yaml.SequenceNode) else repr(node.value)
