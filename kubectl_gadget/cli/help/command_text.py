"""A command as help and completion need it: texts only, made from the command, or read from what the build stored.

The trap: this is imported at every TAB key, so it imports nothing that takes time (dataclasses take 7 ms).
"""

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kubectl_gadget.cli.flags.arguments import Spelling


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
        """As in help: `-n, --namespace NAME`, `--failed`."""
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
    """A command or a group. Up to `columns`, see help_pages.Page."""

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


def spellings(flags: Iterable[FlagText]) -> dict[str, Spelling]:
    """Every spelling of these flags, with -h and --help."""
    result = {"--help": Spelling("help", True), "-h": Spelling("help", True)}
    for flag in flags:
        result |= dict.fromkeys(flag.spellings, Spelling(flag.name, None if flag.metavar else True))
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
