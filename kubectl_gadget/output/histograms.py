"""Histograms as text: below a table, its first rows are repeated as bars, one for each power of two.

Bars belong to one histogram and each has its own scale; the table's column DISTRIBUTION is for comparing rows.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.schema import PERCENTILES, Column, Gadget
from kubectl_gadget.output.escape import escape
from kubectl_gadget.output.row_texts import MemberRows, cells
from kubectl_gadget.output.sink import Sink, StreamSink
from kubectl_gadget.output.tables import GAP, cut, pad, text_width
from kubectl_gadget.rows.amounts import duration_text
from kubectl_gadget.rows.histogram import STARTS, Counts, octave_bounds, octaves, percentiles, read_buckets
from kubectl_gadget.rows.members import find_column
from kubectl_gadget.rows.rows import Rows

_WIDEST_BAR = 40
_EIGHTHS = " ▏▎▍▌▋▊▉█"


class TableWithBars(Sink):
    """A table of histograms, followed by the bars of the first `most` rows. `columns` are the table's."""

    def __init__(self, table: Sink, stream: TextIO, gadget: Gadget, columns: Sequence[str], most: int) -> None:
        self._table = table
        self._stream = stream
        self._keys = key_columns(gadget, columns)
        self._most = most
        self._rows: list[Rows] = []

    def write_chunk(self, rows: Rows) -> None:
        self._table.write_chunk(rows)
        room = self._most - sum(map(len, self._rows))
        if room > 0:
            self._rows.append(rows.head(room))

    def flush(self) -> None:
        self._table.flush()

    def close(self) -> None:
        self._table.close()
        for rows in self._rows:
            names = [cells(rows, name) for name in self._keys]
            histograms = rows.collect(lambda batch: list(batch.raw("buckets")))
            for number, buckets in enumerate(histograms):
                title = "  ".join(
                    escape(f"{key}={texts[number]}") for key, texts in zip(self._keys, names, strict=True)
                )
                self._stream.write("\n" + "\n".join([title, *bars([buckets])]) + "\n")
        self.flush()


def key_columns(gadget: Gadget, columns: Sequence[str]) -> list[str]:
    """The columns that identify a histogram."""

    def is_key(column: Column | None) -> bool:
        return column is not None and column.field not in (*gadget.totals.added_up, "timestamp", "interval")

    return [name for name in columns if is_key(find_column(gadget, name))]


def bars(histograms: Sequence[Counts]) -> list[str]:
    """One line for each power of two between the lowest and the highest, with a bar for each histogram."""
    counts = [octaves(buckets) for buckets in histograms]
    used = np.flatnonzero(sum(counts))
    if not len(used):
        return []
    widest = max(len(str(number)) for each in counts for number in each.tolist())
    lines = []
    for octave in range(int(used[0]), int(used[-1]) + 1):
        start, end = octave_bounds(octave)
        upper = "" if end is None else duration_text(end)
        parts = [f"{duration_text(start):>8} .. {upper:<8}"]
        for each in counts:
            bar = _bar(int(each[octave]), max(each.tolist()))
            parts.append(f"{each[octave]:>{widest}}  {bar:<{_WIDEST_BAR}}")
        lines.append(cut(" ".join(parts).rstrip(), 200))
    return lines


def _bar(count: int, highest: int) -> str:
    """A bar with the length count / highest; a count above 0 is never an empty bar."""
    eighths = -(-count * _WIDEST_BAR * 8 // max(highest, 1))
    full, rest = divmod(eighths, 8)
    return "█" * full + (_EIGHTHS[rest] if rest else "")


# Compares histograms with an earlier run's, recorded with -o json: old and new figures, bars side by side.


Key = tuple[object, ...]


class SavedHistogram:
    """The histograms in a file of JSON lines, aggregated by the columns `keys`. Raises UsageError."""

    def __init__(self, path: Path, keys: Sequence[str]) -> None:
        self._found: dict[Key, tuple[Counts, int]] = {}
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeError) as error:
            raise UsageError(f"--diff {path} cannot be read: {error}") from None
        for number, line in enumerate(lines, 1):
            try:
                self._add(json.loads(line), keys)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise UsageError(
                    f"--diff {path}: line {number} is not a histogram by {', '.join(keys)}: {error}",
                    "record it with -o json and the same --by",
                ) from None

    def _add(self, row: dict[str, Any], keys: Sequence[str]) -> None:
        key = tuple(row[name] for name in keys)
        buckets, highest = self._found.get(key, (np.zeros(len(STARTS), np.uint64), 0))
        self._found[key] = buckets + read_buckets(row["buckets"]), max(highest, int(row["max"]))

    def find(self, key: Key) -> tuple[Counts, int] | None:
        """The buckets and the highest value; None if there is no such histogram."""
        return self._found.get(key)


class DiffTable(StreamSink):
    """A table of rows with their earlier figures, and the bars of the first `most`. `keys` are the columns that
    identify a row."""

    def __init__(self, stream: TextIO, recording: SavedHistogram, keys: Sequence[str], most: int) -> None:
        super().__init__(stream)
        self._recording = recording
        self._keys = list(keys)
        self._most = most
        self._rows: list[Rows] = []

    def write_chunk(self, rows: Rows) -> None:
        self._rows.append(rows)

    def close(self) -> None:
        titles = [*(key.upper() for key in self._keys), "COUNT", *(name.upper() for name in PERCENTILES)]
        table, drawn = [titles], list[str]()
        for rows in self._rows:
            names = list(zip(*(cells(rows, key) for key in self._keys), strict=True))
            values = [tuple(record[key] for key in self._keys) for record in MemberRows(self._keys).records(rows)]
            now = rows.collect(lambda b: list(zip(b.raw("buckets"), b.raw("max").tolist(), strict=True)))
            for texts, key, (buckets, highest) in zip(names, values, now, strict=True):
                before = self._recording.find(key)
                table.append([*map(escape, texts), *_changes(before, (buckets, highest))])
                if len(drawn) < self._most:
                    old = before[0] if before else np.zeros(len(STARTS), np.uint64)
                    title = GAP.join(escape(f"{name}={text}") for name, text in zip(self._keys, texts, strict=True))
                    drawn.append("\n".join(["", f"{title}  (before, now)", *bars([old, buckets])]))
        widths = [max(map(text_width, column)) for column in zip(*table, strict=True)]
        for line in table:
            padded = (pad(text, width, "left") for text, width in zip(line, widths, strict=True))
            self._stream.write(GAP.join(padded).rstrip() + "\n")
        self._stream.write("".join(f"{text}\n" for text in drawn))
        self.flush()


def _changes(before: tuple[Counts, int] | None, now: tuple[Counts, int]) -> list[str]:
    figures = [_figures(each) if each else None for each in (before, now)]
    old, new = figures
    assert new is not None
    spell: list[Callable[[int], str]] = [str, *([duration_text] * len(PERCENTILES))]
    if old is None:
        return [f"- → {text(number)}" for text, number in zip(spell, new, strict=True)]
    return [
        f"{text(was)} → {text(number)}" + (f" {(number - was) * 100 / was:+.0f}%" if was else "")
        for text, was, number in zip(spell, old, new, strict=True)
    ]


def _figures(histogram: tuple[Counts, int]) -> list[int]:
    buckets, highest = histogram
    rows, maxima = buckets[None, :], np.array([highest], np.uint64)
    return [int(buckets.sum()), *(int(percentiles(rows, maxima, percent)[0]) for percent in PERCENTILES.values())]
