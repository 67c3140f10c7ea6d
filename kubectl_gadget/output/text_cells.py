"""The cells of YAML and CSV, made from the JSON texts of whole columns: each different value is formatted once, by the
library, and simple ones without it.

The trap: the library decides how a document is written by all of its texts together (one unprintable character and
every character beyond ASCII is escaped in it), so rows with such characters are left to it as a whole.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from kubectl_gadget.events.batch import Batch
from kubectl_gadget.events.columns.texts import CodedTexts
from kubectl_gadget.events.columns.wall_time import Timestamps
from kubectl_gadget.events.vectors import json_texts, pick
from kubectl_gadget.output.escape import csv_line
from kubectl_gadget.views.row_texts import MemberRows

_MOST = 50_000
"""Different values whose cells are kept, of all columns."""
_LONGEST = 256
"""Longer texts are formatted each time: paths may have 4 KB, and several times as much with escapes."""
_PLAIN = re.compile(r'"[A-Za-z/][A-Za-z0-9_./-]*"')
"""JSON texts that neither YAML nor CSV quotes, unless YAML has a meaning for the word."""
_ABSENT = ("null", "false")
_WORDS = {"yes", "no", "true", "false", "on", "off", "null"}


class Column(NamedTuple):
    """One member of a batch: `template` for its cell, and a list for each of the template's placeholders."""

    name: str
    template: str
    values: tuple[list[Any], ...]
    optional: bool
    """left out where it is null or false"""
    uncertain: list[int]
    """rows with characters beyond ASCII, or with escapes"""


class Cells(dict[str, str]):
    """The cell of each JSON text, made once."""

    def __init__(self, make: Callable[[str], str]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, text: str) -> str:
        cell = self._make(text)
        if len(text) <= _LONGEST:
            if len(self) >= _MOST:
                self.clear()
            self[text] = cell
        return cell

    def columns(self, members: MemberRows, batch: Batch, timestamp: str) -> Iterator[Column]:
        """The columns of a batch, in order. `timestamp` is the template of a wall time's cell."""
        for member in members.members(batch):
            vector = batch.vector(member.name, member.read)
            if member.optional and vector.absent():
                continue
            if isinstance(vector, Timestamps):
                yield Column(member.name, timestamp, (vector.values(),), False, [])
                continue
            if isinstance(vector, CodedTexts) and len(vector.words) > 1:
                words = json_texts(vector.words)
                bad = [code for code, word in enumerate(words) if _is_uncertain(word)]
                rows = np.flatnonzero(np.isin(vector.codes, bad)).tolist() if bad else []
                yield Column(member.name, "%s", (pick([self[word] for word in words], vector.codes),), False, rows)
                continue
            piece, values = vector.json()
            if piece == "%d":
                yield Column(member.name, piece, values, False, [])
                continue
            if not values:
                text = piece % ()
                if member.optional and text in _ABSENT:
                    continue
                rows = list(range(len(batch))) if _is_uncertain(text) else []
                yield Column(member.name, self[text].replace("%", "%%"), (), False, rows)
                continue
            texts = values[0] if piece == "%s" else list(map(piece.__mod__, zip(*values, strict=True)))
            rows = (
                [row for row, text in enumerate(texts) if _is_uncertain(text)] if _is_uncertain("".join(texts)) else []
            )
            if member.optional:
                cells = ["" if text in _ABSENT else self[text] for text in texts]
            else:
                cells = list(map(self.__getitem__, texts))
            yield Column(member.name, "%s", (cells,), member.optional, rows)


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
        # A second cell, since an empty one alone is quoted.
        return csv_line([cell(json.loads(text)), ""])[:-2]

    return Cells(make)


def joined(template: str, lists: Sequence[list[Any]], count: int) -> list[str]:
    """One text per row."""
    return list(map(template.__mod__, zip(*lists, strict=True))) if lists else [template % ()] * count
