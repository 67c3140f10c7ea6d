"""Chooses the columns that a table, or a machine-readable format, shows for the gadgets of a run.

Several gadgets share one table: EVENT names the gadget of a row, then come the columns that all of them have, and
DETAILS holds the columns of a single gadget. The trap: a name in `--columns` may belong to only one of them; its cells
are then empty in the others' rows.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.schema import IDENTITY_COLUMNS, Column, Gadget
from kubectl_gadget.light_dataclasses import dataclass
from kubectl_gadget.rows.columns.members import column_kind, column_members, row_members
from kubectl_gadget.similar_names import suggested

EVENT = "event"
DETAILS = "details"
Level = Literal["default", "wide", "json"]
_SHOWN: dict[Level, tuple[str, ...]] = {
    "default": ("default",),
    "wide": ("default", "wide"),
    "json": ("default", "wide", "json"),
}


@dataclass(frozen=True)
class Heading:
    """One column of a table."""

    name: str
    title: str
    width: int
    align: Literal["left", "right"] = "left"
    stretch: bool = False
    alarm: bool = False
    """a cell other than 0 is an error"""
    whole: bool = False
    """if lines may wrap, they wrap before this column is cut"""


def choose_columns(gadgets: Sequence[Gadget], chosen: Sequence[str], level: Level) -> list[str]:
    """Names of the columns to show, in order: those of the level, or the chosen ones (`a,b`; `+a` adds, `-a` removes).

    Raises UsageError, which offers the nearest names.
    """
    known = {column.name for gadget in gadgets for column in gadget.columns} | set(IDENTITY_COLUMNS)
    for name in chosen:
        if (plain := name.lstrip("+-")) not in known:
            raise UsageError(f"there is no column {plain!r}", suggested(plain, known))
    names = [name for name in chosen if name[:1] not in "+-"]
    if not names:
        levels = _SHOWN[level]
        names = [column.name for gadget in gadgets for column in gadget.columns if column.show in levels]
        if len(gadgets) > 1 and level != "json":
            names = [name for name in names if _is_shared(name, gadgets, levels)] + [DETAILS]
    names += [name[1:] for name in chosen if name.startswith("+")]
    hidden = {name[1:] for name in chosen if name.startswith("-")}
    found = [name for name in dict.fromkeys(names) if name not in hidden]
    if not found:
        raise UsageError("--columns leaves no column to show")
    return found


def column_names(gadgets: Sequence[Gadget], typed: Sequence[str]) -> tuple[str, ...]:
    """Column names for typed words: names and headings in any case, with an optional + or - in front. Other words are
    unchanged. Raises UsageError for a heading that several columns have."""
    titles = [(column.title, column.name) for gadget in gadgets for column in gadget.columns]
    return names_of(typed, [*titles, *((name.upper(), name) for name in IDENTITY_COLUMNS)])


def names_of(typed: Sequence[str], titles: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Column names for typed words in any table. `titles` are pairs of heading and name."""
    by_title: dict[str, set[str]] = {}
    for title, name in titles:
        by_title.setdefault(title.lower(), set()).add(name)
    known = {name for names in by_title.values() for name in names}
    found = []
    for text in typed:
        sign, name = (text[:1], text[1:]) if text[:1] in ("+", "-") else ("", text)
        names = {name} if name in known else {name.lower()} & known or by_title.get(name.lower(), {name})
        if len(names) > 1:
            raise UsageError(f"{name} is the heading of several columns", f"{' or '.join(sorted(names))}")
        found.append(sign + next(iter(names)))
    return tuple(found)


def headings(gadgets: Sequence[Gadget], names: Iterable[str]) -> list[Heading]:
    """The headings of these columns; EVENT comes first if there are several gadgets."""
    found = [Heading(EVENT, "EVENT", max(len(gadget.event) for gadget in gadgets))] if len(gadgets) > 1 else []
    for name in names:
        if name == DETAILS:
            found.append(Heading(DETAILS, "DETAILS", 40, stretch=True))
        for gadget in gadgets:
            column = find_column(gadget, name)
            if column is not None:
                kind = column_kind(gadget, column)
                found.append(
                    Heading(name, column.title, column.width, column.align, column.stretch, bool(kind and kind.alarm))
                )
                break
    return found


def details(gadget: Gadget, gadgets: Sequence[Gadget]) -> list[Column]:
    """The columns that DETAILS shows for a gadget: those of its default table that not all gadgets of the run have."""
    return [
        column
        for column in gadget.columns
        if column.show == "default" and not _is_shared(column.name, gadgets, ("default",))
    ]


def _is_shared(name: str, gadgets: Sequence[Gadget], levels: Sequence[str]) -> bool:
    """Whether all gadgets show a column with that name."""
    return all(any(column.name == name and column.show in levels for column in gadget.columns) for gadget in gadgets)


def find_column(gadget: Gadget, name: str) -> Column | None:
    """A gadget's column with that name, or an identity column, which every gadget has."""
    for column in gadget.columns:
        if column.name == name:
            return column
    return Column(name, name.upper(), name, "", width=16) if name in IDENTITY_COLUMNS else None


def member_names(gadget: Gadget, columns: Sequence[str]) -> list[str]:
    """The JSON members of these columns, in the order of the columns; all of the gadget's members if there are none."""
    if not columns:
        return [member.name for member in row_members(gadget)]
    found = [find_column(gadget, name) for name in columns]
    return [member.name for column in found if column is not None for member in column_members(gadget, column)]
