"""Loads YAML; reports parse errors in one line, with the place and a reason in the author's terms. And the fields of
objects that users write as YAML.

The parser stops where it cannot continue, which is often the line after the mistake.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TextIO, TypeVar

from kubectl_gadget.errors import UsageError

if TYPE_CHECKING:
    import yaml


Parsed = TypeVar("Parsed")

LARGEST = 4 << 20
"""The longest text of a file that people write, in characters: /dev/zero has no end."""
_WORDS = (
    (
        "mapping values are not allowed",
        "one `:` too many: look for missing quotes or wrong indentation here and in the line before",
    ),
    ("did not find expected key", "unexpected here: check the indentation"),
    ("expected <block end>", "unexpected here: check the indentation"),
    ("did not find expected '-' indicator", "a list continues with `-`, indented like the items above"),
    ("could not find expected ':'", "a `:` is missing"),
    ("node content", "a value is missing"),
    ("found unexpected end of stream", "the file ends before a quote does"),
    ("but found another document", "a second document begins here, and there must be one"),
)
"""Messages of PyYAML and libyaml, and their meaning."""


@dataclass(frozen=True)
class Example:
    """A command line and its purpose, as pages of gadgets and of commands have them."""

    command: str
    description: str


@dataclass(frozen=True)
class Place:
    """A place in a user's YAML."""

    file: str
    line: int
    """from 1"""
    path: str
    """spec.kprobes[0].selectors[1]"""
    column: int = 0
    """from 1; 0: not known"""

    @property
    def position(self) -> str:
        """FILE:LINE:COLUMN."""
        return f"{self.file}:{self.line}:{self.column}" if self.column else f"{self.file}:{self.line}"

    def __str__(self) -> str:
        return f"{self.position}: {self.path}".rstrip()


def read_yaml(path: Path, parse: Callable[[str], Parsed], largest: int = LARGEST) -> Parsed:
    """Parses a file's text with `parse`. Raises UsageError."""
    try:
        with path.open(encoding="utf-8") as stream:
            text = read_text(str(path), stream, largest)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    return parse_yaml(str(path), text, lambda: parse(text))


def read_text(name: str, stream: TextIO, largest: int = LARGEST) -> str:
    """The text of a stream. Raises UsageError."""
    try:
        text = stream.read(largest + 1)
    except UnicodeDecodeError:
        raise UsageError(f"{name} is not valid YAML: it is not UTF-8") from None
    if len(text) > largest:
        raise UsageError(f"{name} has more than {largest >> 20} MiB")
    return text


def parse_yaml(file: str, text: str, parse: Callable[[], Parsed]) -> Parsed:
    """Parses a text that was read from `file`. Raises UsageError."""
    import yaml

    try:
        return parse()
    except RecursionError:
        raise UsageError(f"{file} is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:
        raise no_yaml(file, text, error) from None


def own_data(path: Path) -> Any:
    """The content of a YAML file of this package."""
    import yaml

    return yaml.load(path.read_text("utf-8"), safe_loader())


def safe_loader() -> Any:
    """libyaml's, which takes a tenth of the time, or Python's if PyYAML was built without libyaml."""
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def safe_dumper() -> object:
    """As safe_loader()."""
    import yaml

    return getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def no_yaml(file: str, text: str, error: "yaml.YAMLError | ValueError") -> UsageError:
    """Converts the parser's error."""
    mark, position = getattr(error, "problem_mark", None), getattr(error, "position", None)
    if mark is not None:
        line, column, why = mark.line + 1, mark.column + 1, _why(text, error)
    elif position is not None:
        before = text[:position].split("\n")
        line, column = len(before), len(before[-1]) + 1
        why = f"{getattr(error, 'reason', error)}: is it a text file?"
    else:
        return UsageError(f"{file} is not valid YAML: {' '.join(str(error).split())}")
    return UsageError(f"{file}:{line}:{column}: is not valid YAML: {why}")


def _why(text: str, error: "yaml.YAMLError | ValueError") -> str:
    mark, begun = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    said = getattr(error, "problem", None) or getattr(error, "context", None) or "the parser does not say why"
    rest = "".join(text.splitlines()[mark.line : mark.line + 1]) if mark else ""
    if mark and rest[: mark.column + 1].endswith("\t"):
        return "YAML cannot be indented with tabs: use spaces"
    if mark and "cannot start any token" in said:
        return f"write quotes around what begins with {rest[mark.column : mark.column + 1]!r}"
    why = next((words for words_of, words in _WORDS if words_of in said), said)
    return f"{why} (it began in line {begun.line + 1})" if begun and mark and begun.line != mark.line else why


# Fields. `yaml_reader` rejects those that are not described, and `policy explain` shows the descriptions. A `value`
# keeps its text as written, since its meaning depends on another field.


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
