"""Histograms as text: below a table, its first rows are repeated as bars, one for each power of two.

The trap: bars belong to one histogram and each has its own scale; the table's column DISTRIBUTION is for comparing
rows.
"""

from collections.abc import Sequence
from typing import TextIO

import numpy as np

from kubectl_gadget.gadgets.schema import Column, Gadget
from kubectl_gadget.output.escape import escape
from kubectl_gadget.output.row_texts import cells
from kubectl_gadget.output.shown_columns import find_column
from kubectl_gadget.output.sink import Sink
from kubectl_gadget.output.tables.widths import cut
from kubectl_gadget.rows.columns.histogram import Counts, octave_bounds, octaves
from kubectl_gadget.rows.columns.rounded_amounts import duration_text
from kubectl_gadget.rows.rows import Rows

_WIDEST_BAR = 40
_EIGHTHS = " ▏▎▍▌▋▊▉█"


class TableWithBars(Sink):
    """A table of histograms, followed by the bars of the first `most` rows. `columns` are those of the table."""

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
    """Those of the columns that identify a histogram."""

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
