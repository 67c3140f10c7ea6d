"""The output formats of every command: the values of `-o`, and what help, completion and errors list.

Imports nothing heavy, since the command line is built from it. The printers are in tables of makers, by name, next to
their records: output/output_formats.py, observe/formats.py, flows/formats.py. A format
that is only in one of the two places is offered by help but not implemented, or the reverse; tests compare them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from kubectl_gadget.errors import UsageError
from kubectl_gadget.rows.arrangement import Arrangement
from kubectl_gadget.wording import suggested

Maker = TypeVar("Maker")

TEMPLATES = {
    "jsonpath": "jsonpath='{.pod}: {.path}'",
    "custom-columns": "custom-columns=POD:.pod,PATH:.path",
}
"""Formats that need a template after `=`, with an example."""


class UnknownFormatError(ValueError):
    """There is no format with this name."""


@dataclass(frozen=True)
class Formats:
    """The formats for one kind of records."""

    names: tuple[str, ...]
    default: str
    rare: tuple[str, ...] = ()
    """formats that only some gadgets have: checked and completed like the others, but explained by those gadgets"""

    @property
    def choices(self) -> tuple[str, ...]:
        return tuple(f"{name}=" if name in TEMPLATES else name for name in self.names)

    @property
    def help(self) -> str:
        """All formats except the rare ones, as listed in help."""
        return " ".join(choice for choice in self.choices if choice not in self.rare)

    @property
    def plain(self) -> frozenset[str]:
        """The formats that need no template and that every gadget has."""
        return frozenset(self.names) - {*TEMPLATES, *self.rare}

    @property
    def words(self) -> str:
        """The formats as in a sentence: table, json or name."""
        return " or ".join(filter(None, (", ".join(self.names[:-1]), self.names[-1])))

    def check(self, text: str) -> str:
        """Returns the text if it is valid. Raises ValueError, whose message continues a sentence that begins with the
        flag."""
        name, equals, template = text.partition("=")
        if name in TEMPLATES and name in self.names:
            if not template.strip():
                raise ValueError(f"{name} needs a template, for example {TEMPLATES[name]}")
            return text
        if name in self.names:
            if equals:
                raise ValueError(f"{name} takes no template")
            return text
        raise UnknownFormatError(f"must be one of {', '.join(self.spelled)}")

    @property
    def spelled(self) -> tuple[str, ...]:
        """The formats as listed in errors."""
        return tuple(f"{name}=…" if name in TEMPLATES else name for name in self.names)

    def choose(self, text: str, makers: Mapping[str, Maker]) -> tuple[Maker, str]:
        """The maker of a format and its template. Raises UsageError."""
        name, _, template = text.partition("=")
        if name not in self.names:
            raise UsageError(f"unknown output format {text!r}", suggested(name, self.names))
        if (name in TEMPLATES) != bool(template):
            takes = "takes no template" if template else "needs a template"
            examples = ", ".join(f"-o {example}" for example in TEMPLATES.values())
            raise UsageError(f"-o {name} {takes}", examples)
        return makers[name], template


PROFILES = ("folded", "speedscope", "pprof")
"""Formats made of whole call stacks."""
ROWS = Formats(
    ("table", "wide", "json", "yaml", "csv", "name", "pcap-ng", *PROFILES, *TEMPLATES), "table", ("pcap-ng", *PROFILES)
)
"""formats of gadgets"""
STORY = Formats(("compact", "json", "jsonpb", "table", "wide", "yaml", "csv", "name", *TEMPLATES), "compact")
"""formats of observe and enforce"""
FLOWS = Formats(
    ("table", "wide", "json", "jsonpb", "compact", "dot", "mermaid", "yaml", "csv", "name", *TEMPLATES),
    "table",
)
LISTS = Formats(("table", "json", "name"), "table")
POLICY_LIST = Formats(("table", "json", "name", "yaml"), "table")
REPORTS = Formats(("table", "json"), "table")
"""formats of status, policy check, policy install"""
SETTINGS = Formats(("table", "json", "yaml"), "table")
VERSIONS = Formats(("text", "json"), "text")
MANIFESTS = Formats(("yaml", "json"), "yaml")
"""formats of advise and deploy"""
CONVERSIONS = Formats(("parquet", "jsonl", "csv", "perfetto", "pcap-ng", *PROFILES), "parquet")
"""formats of recording convert"""
QUERIES = Formats(("table", "json", "yaml", "csv"), "table")
"""formats of recording query"""
BEHAVIORS = Formats(("text", "yaml", "json"), "text")
"""formats of behavior show"""
CHANGES = Formats(("text", "json", "markdown", "html"), "text")
"""formats of behavior diff"""


# Options for what is printed, and how.


@dataclass(frozen=True)
class OutputOptions:
    """Options for what is printed."""

    format: str = "table"
    """table, wide, json, yaml, csv, name, pcap-ng, folded, speedscope, pprof, jsonpath=…, custom-columns=…"""
    no_headers: bool = False
    color: str = "auto"
    """auto, always, never"""
    columns: tuple[str, ...] = ()
    """--columns a,b: shown instead of the default columns"""
    once: bool = False
    """one table at the end, if a gadget is not a stream"""
    arrangement: Arrangement = field(default_factory=Arrangement)
    """of tables that are not streams; `sort` is the initial order of a table that is redrawn"""
    selection: str = ""
    """the selected containers, in words, for files that are viewed later, without the command"""
