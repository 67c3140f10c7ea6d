"""The cells of YAML and CSV, made from the JSON texts of whole columns: each different value is formatted once, by the
library, and simple ones without it.

The trap: the YAML library escapes per document: one unprintable character, and every character beyond ASCII in that
document is escaped. So the library writes rows with such characters as a whole.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from kubectl_gadget.output.escape import csv_line
from kubectl_gadget.output.joined_columns import Codes, JoinedColumns
from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.columns.kind import Member
from kubectl_gadget.rows.columns.texts import PLAIN
from kubectl_gadget.rows.columns.wall_time import Timestamps
from kubectl_gadget.rows.vectors import Few

_MOST = 50_000
"""Different values whose cells are kept, of all columns."""
_LONGEST = 256
"""Longer texts are formatted each time: paths may have 4 KB, and several times as much with escapes."""
_PLAIN = re.compile(r'"[A-Za-z/][A-Za-z0-9_./-]*"')
"""JSON texts that neither YAML nor CSV quotes, unless YAML has a meaning for the word."""
_ABSENT = ("null", "false")
_WORDS = {"yes", "no", "true", "false", "on", "off", "null"}


class TextColumn(NamedTuple):
    """One member of a batch: `few` different cells, or a cell's `template` and a list for each placeholder of it."""

    name: str
    few: Few | None
    template: str
    values: Sequence[list[Any]]
    optional: bool
    """left out where it is null or false: its cells are empty there"""
    uncertain: list[int]
    """rows with characters beyond ASCII, or with escapes"""

    def join(self, joined: JoinedColumns, before: str = "", after: str = "") -> None:
        """Adds the member to the columns of `joined`, between two texts, which are left out where the member is."""
        if self.optional:
            words = self.few[1] if self.few else self.values[0]
            texts = [word and f"{before}{word}{after}" for word in words]
            joined.few(self.few[0], texts) if self.few else joined.each("%s", [texts])
            return
        joined.text(before)
        joined.few(*self.few) if self.few else joined.each(self.template, self.values)
        joined.text(after)


class Cells(dict[str, str]):
    """The cell of each JSON text, made once. `as_they_are` gets the texts of a column that JSON does not escape,
    joined, and returns whether they need no quotes in a cell, either."""

    def __init__(self, make: Callable[[str], str], as_they_are: Callable[[str], bool] = lambda texts: False) -> None:
        super().__init__()
        self._make = make
        self._as_they_are = as_they_are

    def __missing__(self, text: str) -> str:
        cell = self._make(text)
        if len(text) <= _LONGEST:
            if len(self) >= _MOST:
                self.clear()
            self[text] = cell
        return cell

    def columns(self, members: MemberRows, batch: Batch, timestamp: str) -> Iterator[TextColumn]:
        """The columns of a batch, in order. `timestamp` is the template of a wall time's cell."""
        for member in members.members(batch):
            vector = batch.vector(member.name, member.read)
            if member.optional and vector.absent():
                continue
            if isinstance(vector, Timestamps):
                template, lists = vector.pieces()
                yield TextColumn(member.name, None, timestamp % template, lists, False, [])
            elif found := vector.few():
                yield self._few(member, *found)
            else:
                yield self._each(member, *vector.json())

    def _few(self, member: Member, codes: Codes, words: Sequence[str]) -> TextColumn:
        bad = [code for code, word in enumerate(words) if _is_uncertain(word)]
        rows = np.flatnonzero(np.isin(codes, bad)).tolist() if bad else []
        cells = ["" if member.optional and word in _ABSENT else self[word] for word in words]
        return TextColumn(member.name, (codes, cells), "", (), member.optional, rows)

    def _each(self, member: Member, piece: str, values: Sequence[list[Any]]) -> TextColumn:
        if piece == "%d" and not member.optional:
            return TextColumn(member.name, None, piece, values, False, [])
        if piece == PLAIN and self._as_they_are("".join(values[0])):
            return TextColumn(member.name, None, "%s", values, member.optional, [])
        texts = values[0] if piece == "%s" else list(map(piece.__mod__, zip(*values, strict=True)))
        rows = [row for row, text in enumerate(texts) if _is_uncertain(text)] if _is_uncertain("".join(texts)) else []
        if member.optional:
            cells = ["" if text in _ABSENT else self[text] for text in texts]
        else:
            cells = list(map(self.__getitem__, texts))
        return TextColumn(member.name, None, "%s", (cells,), member.optional, rows)


def _is_uncertain(text: str) -> bool:
    return not text.isascii() or "\\u" in text


def yaml_cells(dump: Callable[[Any], str]) -> Cells:
    """What follows a member's name in a document, with the newline; `dump` writes a document."""

    def make(text: str) -> str:
        if _PLAIN.fullmatch(text) and text[1:-1].lower() not in _WORDS:
            return f" {text[1:-1]}\n"
        return dump({"k": json.loads(text)})[2:]

    return Cells(make)


def csv_cells(cell: Callable[[Any], Any]) -> Cells:
    """Cells of CSV; `cell` turns a value into what the library writes."""

    def make(text: str) -> str:
        if _PLAIN.fullmatch(text):
            return text[1:-1]
        if text.isdecimal():
            return text
        # A second cell, since an empty one alone is quoted.
        return csv_line([cell(json.loads(text)), ""])[:-2]

    return Cells(make, lambda texts: "," not in texts and texts.isascii())
