"""Joins columns of texts to one text per row.

Rows have dozens of columns, and most of them have few different values: a container's names, users, flags. Adjacent
ones are joined once for each combination of their values that occurs, so that a row is made of a handful of texts
instead of dozens. Numbers of combinations are products, so columns are taken together only while a small
table can hold them all.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Literal

import numpy as np

from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.schema import IDENTITY_COLUMNS, Column, Gadget
from kubectl_gadget.rows.members import column_kind, column_members, find_column, row_members
from kubectl_gadget.rows.vectors import FEW, Integers, are_near, different, pick
from kubectl_gadget.wording import suggested

Codes = Integers
_PLACEHOLDERS = re.compile("(%[sd%])")


class JoinedColumns:
    """The text of each of `count` rows, of columns that are added from left to right."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._parts: list[tuple[str, Sequence[Sequence[object]]]] = []
        """%-templates, and a list for each placeholder"""
        self._run = _Run(count)
        self._has_texts = False

    def text(self, text: str) -> None:
        self._run.add_text(text)

    def few(self, codes: Codes, words: Sequence[str]) -> None:
        """Adds a column of few different texts: a row's is `words[codes[row]]`."""
        if not self._run.add(codes, words):
            self._end_run()
            self._run.add(codes, words)

    def each(self, template: str, lists: Sequence[Sequence[object]]) -> None:
        """Adds a column by its %-template, and a list for each of its placeholders: %s for texts, %d for whole
        numbers."""
        self._end_run()
        self._parts.append((template, lists))

    def texts(self, texts: Sequence[str]) -> None:
        """Adds a column by the text of each row. Then rows are joined from texts, which takes less time than a template
        where rows are long or have few numbers."""
        self.each("%s", [texts])
        self._has_texts = True

    def rows(self) -> list[str]:
        return list(self.each_row())

    def each_row(self) -> Iterator[str]:
        """Yield the rows, and make each when it is taken."""
        self._end_run()
        template = "".join(template for template, _ in self._parts)
        lists = [of_all for _, of_part in self._parts for of_all in of_part]
        if not lists:
            return repeat(template % (), self._count)
        if not self._has_texts:
            return map(template.__mod__, zip(*lists, strict=True))
        return map("".join, zip(*self._pieces(template, lists), strict=True))

    def _pieces(self, template: str, lists: Sequence[Sequence[Any]]) -> Iterator[Iterable[str]]:
        left = iter(lists)
        for piece in _PLACEHOLDERS.split(template):
            match piece:
                case "%s":
                    yield next(left)
                case "%d":
                    yield map(str, next(left))
                case "%%":
                    yield repeat("%", self._count)
                case _ if piece:
                    yield repeat(piece, self._count)

    def _end_run(self) -> None:
        texts, codes = self._run.joined()
        if codes is not None:
            self._parts.append(("%s", [pick(texts, codes)]))
        elif texts[0]:
            self._parts.append((texts[0].replace("%", "%%"), ()))
        self._run = _Run(self._count)


class _Run:
    """Adjacent columns of few values."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._template = ""
        self._columns: list[tuple[int, Sequence[str]]] = []
        """for each placeholder: the place of its codes, and its words"""
        self._codes: list[Codes] = []
        """one per group of columns that have the same codes"""
        self._values: list[Codes] = []
        """by group: the code of each combination"""
        self._combined: Codes | None = None
        """the combination of each row"""

    def add_text(self, text: str) -> None:
        self._template += text.replace("%", "%%")

    def add(self, codes: Codes, words: Sequence[str]) -> bool:
        """Adds a column, unless there are too many combinations."""
        if len(words) == 1:
            self.add_text(words[0])
            return True
        place = next((place for place, known in enumerate(self._codes) if known is codes), len(self._codes))
        if place == len(self._codes) and not self._combine(codes, len(words)):
            return False
        self._template += "%s"
        self._columns.append((place, words))
        return True

    def _combine(self, codes: Codes, size: int) -> bool:
        if self._combined is None:
            self._combined, self._values = codes, [np.arange(size)]
        else:
            numbers = self._combined * size + codes
            if not are_near(numbers):
                return False
            found, combined = different(numbers)
            if len(found) * FEW > self._count:
                return False
            before, last = np.divmod(found, size)
            self._values = [values[before] for values in self._values] + [last]
            self._combined = combined
        self._codes.append(codes)
        return True

    def joined(self) -> tuple[list[str], Codes | None]:
        """The text of each combination, and the combination of each row; None: there is a single one."""
        if self._combined is None:
            return [self._template % ()], None
        lists = [pick(words, self._values[place]) for place, words in self._columns]
        return list(map(self._template.__mod__, zip(*lists, strict=True))), self._combined


# Chooses the columns that a table, or a machine-readable format, shows for the gadgets of a run.


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
    """Return the names of the columns to show, in order: the level's, or the chosen ones (`a,b`; `+a` adds, `-a`
    removes).

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
    """Return the columns that DETAILS shows for a gadget: its default table's, without the ones that all gadgets of the
    run have."""
    return [
        column
        for column in gadget.columns
        if column.show == "default" and not _is_shared(column.name, gadgets, ("default",))
    ]


def _is_shared(name: str, gadgets: Sequence[Gadget], levels: Sequence[str]) -> bool:
    """True if all gadgets show a column with that name."""
    return all(any(column.name == name and column.show in levels for column in gadget.columns) for gadget in gadgets)


def member_names(gadget: Gadget, columns: Sequence[str]) -> list[str]:
    """The JSON members of these columns, in the order of the columns; all of the gadget's members if there are none."""
    if not columns:
        return [member.name for member in row_members(gadget)]
    found = [find_column(gadget, name) for name in columns]
    return [member.name for column in found if column is not None for member in column_members(gadget, column)]
