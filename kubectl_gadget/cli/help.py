"""Help as plain text, since typer's own draws boxes with rich: purpose, examples, flags by group, usage. It must fit
two screens of 24 lines.

A CommandText has all that help and completion show of a command. This is imported at every TAB key, so it
imports nothing that takes time (typer, dataclasses).
"""

import json
import re
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from kubectl_gadget.cli.arguments import Spelling

# A command in texts


class FlagText(NamedTuple):
    """One flag."""

    name: str
    """the name of the parameter"""
    spellings: Sequence[str]
    negations: Sequence[str]
    """spellings that turn it off"""
    metavar: str | None
    """None: a switch"""
    help: str
    panel: str
    choices: Sequence[str] = ()
    """values for completion, if it is stored"""

    @property
    def shown(self) -> str:
        """The form in help: `-n, --namespace NAME`, `--failed`."""
        return ", ".join(sorted(self.spellings, key=len)) + (f" {self.metavar}" if self.metavar else "")


class ExampleText(NamedTuple):
    """See events.example."""

    command: str
    description: str


class ColumnText(NamedTuple):
    """See events.schema."""

    name: str
    title: str
    field: str
    show: str
    description: str


class EntryText(NamedTuple):
    """A sub-command."""

    section: str
    name: str
    summary: str


class CommandText(NamedTuple):
    """A command or a group. Up to `columns`, see pages.Page."""

    summary: str
    usage: str
    named_only: Sequence[str]
    silent: Sequence[str]
    more: str
    examples: Sequence[ExampleText]
    columns: Sequence[ColumnText]
    flags: Sequence[FlagText]
    takes: Sequence[str]
    """the metavars of its arguments"""
    entries: Sequence[EntryText] | None
    """None: it is not a group"""

    def panels(self) -> dict[str, list[FlagText]]:
        found: dict[str, list[FlagText]] = {}
        for flag in self.flags:
            found.setdefault(flag.panel, []).append(flag)
        return found


def _optional(metavar: str | None) -> tuple[str, ...]:
    """Return the values of a flag whose value may be missing, which is shown as [error|warning]."""
    return tuple(metavar[1:-1].split("|")) if metavar and metavar.startswith("[") and metavar.endswith("]") else ()


def spellings(flags: Iterable[FlagText]) -> dict[str, Spelling]:
    """Every spelling of these flags, with -h and --help."""
    result = {"--help": Spelling("help", True), "-h": Spelling("help", True)}
    for flag in flags:
        result |= dict.fromkeys(
            flag.spellings, Spelling(flag.name, None if flag.metavar else True, _optional(flag.metavar))
        )
        result |= dict.fromkeys(flag.negations, Spelling(flag.name, False))
    return result


def read_text(text: bytes, shared: bytes) -> CommandText:
    """A CommandText, of the JSON of its `_asdict()`. Of a flag that several commands have, it has only the place in the
    list `shared`."""
    stored, flags = json.loads(text), json.loads(shared)
    stored["flags"] = [flags[flag] if isinstance(flag, int) else flag for flag in stored["flags"]]
    kinds = {"examples": ExampleText, "columns": ColumnText, "flags": FlagText, "entries": EntryText}
    for name, kind in kinds.items():
        if stored[name] is not None:
            stored[name] = [kind(*item) for item in stored[name]]
    return CommandText(**stored)


# From texts to a page

MOST_LINES = 50
"""Two screens of 25 lines."""
OWN_FLAGS = "Flags of "
"""The beginning of the heading of a gadget's own flags."""
_DEFAULT = re.compile(r" \(default: [^)]*\)")
_WIDEST_NAME = 30
_WHERE = ("node", "namespace", "pod", "container")
_WORTH_NAMING = ("--strict", "--quiet", "--color", "--image")


class _Wrapper(textwrap.TextWrapper):
    """Wraps a list of names only after commas."""

    wordsep_simple_re = re.compile(r"(\s+)|(?<=,)(?=\S)")


def help_of(command: CommandText, path: str, presets: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return the help of a command or a group. If a command's help would be too long, it has fewer examples, and
    columns by name only.

    `presets` are defaults set by the user, by flag.
    """
    if command.entries is not None:
        return _group_help(command, command.entries, path)
    for examples, explain_columns in ((3, True), (2, True), (1, True), (1, False)):
        text = _command_help(command, path, examples, explain_columns, presets)
        if text.count("\n") <= MOST_LINES:
            break
    return text


def _command_help(
    command: CommandText, path: str, examples: int, explain_columns: bool, presets: Mapping[str, str]
) -> str:
    width = _width()
    parts = [*_head(command, width, examples)]
    tables = {
        title: _flag_table(title, flags, presets, width)
        for title, flags in command.panels().items()
        if title not in command.named_only and title not in command.silent
    }
    # As on a gadget's page: its own flags, its columns, and then what all gadgets share.
    parts += [table for title, table in tables.items() if title.startswith(OWN_FLAGS)]
    if command.columns:
        parts.append(["Columns:", *_columns(command.columns, width, explain_columns)])
    parts += [table for title, table in tables.items() if not title.startswith(OWN_FLAGS)]
    parts.append([f"Usage: {path} {command.usage}".rstrip(), *_further(command, width)])
    return _join(parts)


def _group_help(command: CommandText, entries: Sequence[EntryText], path: str) -> str:
    width = _width()
    parts = [*_head(command, width, len(command.examples))]
    sections: dict[str, list[tuple[str, str]]] = {}
    for entry in entries:
        sections.setdefault(entry.section, []).append((entry.name, entry.summary))
    for title, rows in sections.items():
        parts.append([f"{title}:", *_table(rows, width)])
    parts.append([f"Usage: {path} {command.usage}".rstrip(), *_wrap(command.more, width)])
    return _join(parts)


def flag_tables(command: CommandText, presets: Mapping[str, str] = MappingProxyType({})) -> str:
    width = _width()
    return _join([_flag_table(title, flags, presets, width) for title, flags in command.panels().items()])


def _flag_table(title: str, flags: Sequence[FlagText], presets: Mapping[str, str], width: int) -> list[str]:
    return [f"{title}:", *_table([(flag.shown, _explained(flag, presets)) for flag in flags], width)]


def _explained(flag: FlagText, presets: Mapping[str, str]) -> str:
    """A flag's help, with the user's default instead of the built-in one."""
    preset = presets.get(flag.name)
    return flag.help if preset is None else f"{_DEFAULT.sub('', flag.help)} {preset}"


def _head(page: CommandText, width: int, examples: int) -> Iterator[list[str]]:
    yield _wrap(page.summary, width)
    if page.examples:
        lines = ["Examples:"]
        for example in page.examples[:examples]:
            lines += [f"  # {example.description}", f"  {example.command}"]
        yield lines


def _columns(columns: Sequence[ColumnText], width: int, explain: bool) -> list[str]:
    """The default columns as rows, the others by name."""
    shown = [column for column in columns if column.show == "default"]
    others = [column.name for column in columns if column.show == "wide"]
    where = [column.title for column in shown if column.field in _WHERE]
    if explain:
        rows = [(_titled(column), column.description) for column in shown if column.field not in _WHERE]
        lines = [f"  {' '.join(where)}"] * bool(where) + _table(rows, width)
    else:
        lines = _wrap(" ".join(_titled(column).replace(" ", "") for column in shown), width, "  ")
    return lines + (_wrap(f"-o wide adds: {', '.join(others)}", width, "  ") if others else [])


def _titled(column: ColumnText) -> str:
    """`ERR (errno)`: the heading, and the name in flags, filters and JSON if that differs."""
    return column.title if column.title.lower() == column.name else f"{column.title} ({column.name})"


def _further(command: CommandText, width: int) -> list[str]:
    by_title = command.panels()
    titles = [title for title in command.named_only if title not in command.silent]
    longest = [max(flag.spellings, key=len) for title in titles for flag in by_title.get(title, [])]
    named = [name for name in longest if name in _WORTH_NAMING]
    lines = _wrap(f"More flags: kubectl gadget options ({', '.join(named)}, …)", width) if named else []
    return lines + _wrap(command.more, width)


def _table(rows: Sequence[tuple[str, str]], width: int) -> list[str]:
    """Two columns; long text continues on the next line of the second column."""
    left = min(max((len(name) for name, _ in rows), default=0), _WIDEST_NAME) + 2
    lines = []
    for name, text in rows:
        first, *rest = _Wrapper(width - left - 2, break_on_hyphens=False).wrap(text) or [""]
        if len(name) < left:
            lines.append(f"  {name:<{left}}{first}".rstrip())
        else:
            lines += [f"  {name}", " " * (left + 2) + first]
        lines += [" " * (left + 2) + line for line in rest]
    return lines


def _wrap(text: str, width: int, indent: str = "") -> list[str]:
    lines: list[str] = []
    for paragraph in text.strip().splitlines():
        wrapper = _Wrapper(width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
        lines += wrapper.wrap(paragraph) or [""]
    return lines


def _width() -> int:
    return max(60, min(shutil.get_terminal_size((80, 24)).columns, 100))


def _join(parts: Sequence[Sequence[str]]) -> str:
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"
