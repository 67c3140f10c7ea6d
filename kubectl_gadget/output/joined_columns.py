"""Joins columns of texts to one text per row.

Rows have dozens of columns, of which most have few different values: a container's names, users, flags. Adjacent ones
are joined once for each combination of their values that occurs, so that a row is made of a handful of texts instead of
dozens. The trap: numbers of combinations are products, so columns are taken together only while a small table can hold
them all.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt

from kubectl_gadget.rows.vectors import FEW, are_near, different, pick

Codes = npt.NDArray[np.integer[Any]]
_PLACEHOLDERS = re.compile("(%[sd%])")


class JoinedColumns:
    """The text of each of `count` rows, of columns that are added from left to right."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._parts: list[tuple[str, Sequence[Sequence[Any]]]] = []
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

    def each(self, template: str, lists: Sequence[Sequence[Any]]) -> None:
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
        """The rows, each of which is made when it is taken."""
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
