"""Help as plain text: purpose, examples, flags by group, usage. It must fit two screens of 24 lines.

Written by hand, since typer's own help draws boxes with rich. The trap: rarely needed flags are only named here
(`NAMED_ONLY`) and explained by `kubectl gadget options`; otherwise no gadget's help would fit.
"""

import re
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from typer.core import TyperOption

from kubectl_gadget.cli.flags.declaration import CLUSTER, ENGINE
from kubectl_gadget.events.example import Example

if TYPE_CHECKING:
    from typer._click.core import Parameter  # typer names it nowhere else

    from kubectl_gadget.events.schema import Column

NAMED_ONLY = (ENGINE, CLUSTER)
MOST_LINES = 48
_DEFAULT = re.compile(r" \(default: [^)]*\)")
_WIDEST_NAME = 30
_WHERE = ("node", "namespace", "pod", "container")
_WORTH_NAMING = ("--strict", "--quiet", "--color", "--image")


@dataclass(frozen=True)
class Page:
    """A command's help apart from its flags."""

    summary: str = ""
    examples: tuple[Example, ...] = ()
    columns: "tuple[Column, ...]" = ()
    usage: str = ""
    """the usage line after the command"""
    named_only: tuple[str, ...] = NAMED_ONLY
    """groups of flags that are named but not explained"""
    silent: tuple[str, ...] = ()
    """groups of flags that are accepted but not mentioned"""
    more: str = ""
    """a last paragraph"""
    passes_on: bool = False
    """all words after the first are for another program"""


class HasPage(Protocol):
    """A command with a page."""

    page: Page
    params: "list[Parameter]"


class _Wrapper(textwrap.TextWrapper):
    """Wraps a list of names only after commas."""

    wordsep_simple_re = re.compile(r"(\s+)|(?<=,)(?=\S)")


def command_help(command: HasPage, path: str, presets: Mapping[str, str] = MappingProxyType({})) -> str:
    """Help of one command. If it would be too long, it has fewer examples, and columns by name only.

    `presets` are defaults set by the user, by flag.
    """
    for examples, explain_columns in ((3, True), (2, True), (1, True), (1, False)):
        text = _command_help(command, path, examples, explain_columns, presets)
        if text.count("\n") <= MOST_LINES:
            break
    return text


def _command_help(command: HasPage, path: str, examples: int, explain_columns: bool, presets: Mapping[str, str]) -> str:
    page = command.page
    width = _width()
    parts = [*_head(page, width, examples)]
    for title, flags in panels(command.params).items():
        if title not in page.named_only and title not in page.silent:
            parts.append(
                [f"{title}:", *_table([(flag_text(flag), _explained(flag, presets)) for flag in flags], width)]
            )
    if page.columns:
        parts.append(["Columns:", *_columns(page.columns, width, explain_columns)])
    parts.append([f"Usage: {path} {page.usage}".rstrip(), *_further(command, width)])
    return _join(parts)


def group_help(page: Page, entries: Iterable[tuple[str, str, str]], path: str) -> str:
    """Help of a group. `entries` are section, name and summary of each sub-command."""
    width = _width()
    parts = [*_head(page, width, len(page.examples))]
    sections: dict[str, list[tuple[str, str]]] = {}
    for section, name, summary in entries:
        sections.setdefault(section, []).append((name, summary))
    for title, rows in sections.items():
        parts.append([f"{title}:", *_table(rows, width)])
    parts.append([f"Usage: {path} {page.usage}".rstrip(), *_wrap(page.more, width)])
    return _join(parts)


def flag_tables(params: "Sequence[Parameter]", presets: Mapping[str, str] = MappingProxyType({})) -> str:
    """All flags of `params` with explanations, by group."""
    width = _width()
    return _join(
        [
            [f"{title}:", *_table([(flag_text(flag), _explained(flag, presets)) for flag in flags], width)]
            for title, flags in panels(params).items()
        ]
    )


def flag_text(flag: TyperOption) -> str:
    """A flag as help shows it: `-n, --namespace NAME`, `--failed`."""
    names = sorted(flag.opts, key=len)
    return ", ".join(names) + (f" {flag.metavar}" if flag.metavar and not flag.is_flag else "")


def _explained(flag: TyperOption, presets: Mapping[str, str]) -> str:
    """A flag's help, with the user's default instead of the built-in one."""
    if (preset := presets.get(flag.name or "")) is None:
        return flag.help or ""
    return f"{_DEFAULT.sub('', flag.help or '')} {preset}"


def _head(page: Page, width: int, examples: int) -> Iterator[list[str]]:
    yield _wrap(page.summary, width)
    if page.examples:
        lines = ["Examples:"]
        for example in page.examples[:examples]:
            lines += [f"  # {example.description}", f"  {example.command}"]
        yield lines


def panels(params: "Sequence[Parameter]") -> dict[str, list[TyperOption]]:
    """The options of `params` by section of help."""
    found: dict[str, list[TyperOption]] = {}
    for item in params:
        if isinstance(item, TyperOption) and not item.hidden:
            found.setdefault(item.rich_help_panel or "Flags", []).append(item)
    return found


def _columns(columns: "Sequence[Column]", width: int, explain: bool) -> list[str]:
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


def _titled(column: "Column") -> str:
    """`ERR (errno)`: the heading, and the name in flags, filters and JSON if that differs."""
    return column.title if column.title.lower() == column.name else f"{column.title} ({column.name})"


def _further(command: HasPage, width: int) -> list[str]:
    page = command.page
    by_title = panels(command.params)
    named = [
        max(item.opts, key=len)
        for title in page.named_only
        if title not in page.silent
        for item in by_title.get(title, [])
        if max(item.opts, key=len) in _WORTH_NAMING
    ]
    lines = _wrap(f"More flags: kubectl gadget options ({', '.join(named)}, …)", width) if named else []
    return lines + _wrap(page.more, width)


def _table(rows: Sequence[tuple[str, str]], width: int) -> list[str]:
    """Two columns; long text continues on the next line of the second column."""
    left = min(max((len(name) for name, _ in rows), default=0), _WIDEST_NAME) + 2
    lines = []
    for name, text in rows:
        first, *rest = _Wrapper(width - left - 2, break_on_hyphens=False).wrap(text) or [""]
        lines.append(f"  {name:<{left}}{first}".rstrip() if len(name) < left else f"  {name}  {first}".rstrip())
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
