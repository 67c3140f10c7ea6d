"""`kubectl_complete-gadget`: shell completion after `kubectl gadget`.

kubectl runs this program with the words of the command line, the last one unfinished. It reads one candidate per line,
with a tab before its description, and finally `:` and a number that tells the shell what to do
(https://kubernetes.io/docs/tasks/extend-kubectl/kubectl-plugins/, cobra's ShellCompDirective). The trap: a single line
on standard error would appear in the middle of what the user is typing, so nothing may ever be written there.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from typer import Context
from typer.core import TyperArgument, TyperOption

from kubectl_gadget.cli import cluster_names
from kubectl_gadget.cli.flags.arguments import Given, parse
from kubectl_gadget.cli.framework.command import Command, GadgetGroup, spellings
from kubectl_gadget.cli.root import root
from kubectl_gadget.cluster.selection.target_names import KINDS, kind_of

FILES = 0
"""Directives for the shell: FILES completes file names."""
NO_FILES = 4
NO_FILES_NO_SPACE = 6

_FILES = ("FILE", "TOOL", "PROGRAM")
"""Arguments that are files, or may be."""
_LISTS = ("columns", "nodes", "containers", "table_sort", "table_by")
"""Flags whose value is a list of column names, or of names in the cluster."""


class Suggestion(NamedTuple):
    """A word that is possible here."""

    word: str
    description: str = ""


@dataclass
class CursorPosition:
    """The position of the unfinished word on the command line."""

    command: Command
    given: list[Given] = field(default_factory=list)
    positionals: list[str] = field(default_factory=list)
    pending: str | None = None


def main() -> None:
    """The program's entry point: prints candidates and the directive, whatever happens."""
    sys.stderr = open(os.devnull, "w")
    try:
        candidates, directive = complete(sys.argv[1:])
        lines = [_line(candidate) for candidate in candidates]
    except (Exception, KeyboardInterrupt):
        # an error cannot be reported: the shell shows whatever is written
        lines, directive = [], NO_FILES
    sys.stdout.write("".join(line + "\n" for line in [*lines, f":{directive}"]))


def complete(words: Sequence[str]) -> tuple[list[Suggestion], int]:
    """Candidates for the last of `words`, and the directive. Raises GadgetError if earlier words are invalid."""
    *before, current = words or [""]
    place = _find(before)
    if place is None:
        return [], NO_FILES
    known = spellings(place.command)
    if place.pending:
        return _values(place, known[place.pending].name, current)
    if current.startswith("-") and "=" in current:
        name, _, value = current.partition("=")
        return _values(place, known[name].name, value) if name in known else ([], NO_FILES)
    if current.startswith("-"):
        return _matching(_flags(place.command), current), NO_FILES
    if isinstance(place.command, GadgetGroup):
        entries = place.command.entries.items()
        found = [Suggestion(name, entry.summary) for name, entry in entries if not entry.hidden]
        if joined := place.command.joined(current):
            return _matching([Suggestion(*item) for item in joined], current), NO_FILES
        return _matching(found, current), NO_FILES if found and not place.command.takes_files else FILES
    takes = [item.metavar for item in place.command.params if isinstance(item, TyperArgument)]
    if takes and takes[0] in _FILES:
        return [], FILES
    candidates = _matching(_pods(place, current), current) if takes == ["POD"] else []
    is_open = bool(candidates) and all(candidate.word.endswith("/") for candidate in candidates)
    return candidates, NO_FILES_NO_SPACE if is_open else NO_FILES


def _find(words: Sequence[str]) -> CursorPosition | None:
    """The command that `words` lead to; None if there is none."""
    place = CursorPosition(root())
    rest = list(words)
    while True:
        group = place.command if isinstance(place.command, GadgetGroup) else None
        parsed = parse(spellings(place.command), rest, subcommands=group is not None)
        place.given += parsed.given
        words = group.behind_files(parsed.positionals) if group else parsed.positionals
        if group is None or not words:
            place.positionals, place.pending = words, parsed.pending
            return place
        name, *rest = words
        below = group.get_command(None, name)
        if below is None:
            return None
        place.command = below


def _flags(command: Command) -> Iterable[Suggestion]:
    for item in command.params:
        if isinstance(item, TyperOption):
            yield from (Suggestion(text, item.help or "") for text in sorted(item.opts, key=len, reverse=True))
    yield Suggestion("--help", "Show the help of this command")


def _values(place: CursorPosition, name: str, current: str) -> tuple[list[Suggestion], int]:
    """Candidates for the value of the flag `name`."""
    (item,) = (item for item in place.command.params if isinstance(item, TyperOption) and item.name == name)
    if item.metavar == "FILE":
        return [], FILES
    if name in _LISTS:
        done, comma, current = current.rpartition(",")
        # --sort -cpu sorts in descending order; --columns -node removes a column.
        sign = current[:1] if name in ("columns", "table_sort") and current[:1] in ("+", "-") else ""
        names = _looked_up(place, name) if name in ("nodes", "containers") else _columns(place)
        return _matching(names, current.removeprefix(sign), done + comma + sign), NO_FILES
    offered = item.shell_complete(Context(place.command), current)
    if not offered and "," in current:
        done, comma, current = current.rpartition(",")
        again = item.shell_complete(Context(place.command), current)
        return [Suggestion(f"{done},{choice.value}") for choice in again], NO_FILES
    if offered:
        candidates = [Suggestion(choice.value) for choice in offered]
        open_ended = all(candidate.word.endswith("=") for candidate in candidates)
        return candidates, NO_FILES_NO_SPACE if open_ended else NO_FILES
    return _matching(_looked_up(place, name), current), NO_FILES


def _columns(place: CursorPosition) -> list[Suggestion]:
    return [Suggestion(column.name, column.description) for column in place.command.page.columns]


def _looked_up(place: CursorPosition, name: str) -> list[Suggestion]:
    return [Suggestion(word) for word in cluster_names.of_flag(name, place.given, place.positionals)]


def _pods(place: CursorPosition, current: str) -> list[Suggestion]:
    """Pods, kinds followed by a slash, and objects of a kind after the slash."""
    kind, slash, _ = current.rpartition("/")
    if slash:
        known = kind_of(kind)
        found = [f"{kind}/{name}" for name in cluster_names.of_kind(KINDS[known][0], place.given)] if known else []
    else:
        found = cluster_names.pods(place.given)
        if current and found != [current]:
            found += [
                f"{name}/" for kind, names in KINDS.items() for name in (kind, *names) if name.startswith(current)
            ]
    return [Suggestion(name) for name in found if name not in place.positionals]


def _matching(candidates: Iterable[Suggestion], current: str, prefix: str = "") -> list[Suggestion]:
    return [Suggestion(prefix + word, description) for word, description in candidates if word.startswith(current)]


def _line(candidate: Suggestion) -> str:
    """A candidate as cobra reads it; text from the cluster must not break out of its line."""
    word, description = candidate
    text = f"{word}\t{description}" if description else word
    return "".join(c for c in text if c.isprintable() or c == "\t")


if __name__ == "__main__":
    main()
