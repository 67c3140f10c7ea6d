"""The table of a stream: rows are printed as they come, so widths are fixed before all rows are known.

On a terminal the table fits its width and follows a resize, and cells are cut with an ellipsis; in a pipe nothing is
cut, and the header is printed once. The trap: a color's escape codes take no width, so a cell is padded before it is
colored.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from typing import NamedTuple, TextIO

from kubectl_gadget.output.escape import escape
from kubectl_gadget.output.row_texts import cells, pod_keys
from kubectl_gadget.output.shown_columns import Heading
from kubectl_gadget.output.sink import StreamSink
from kubectl_gadget.output.tables.widths import GAP, cut, fit, pad, text_width, widest
from kubectl_gadget.output.terminal import RED, Terminal, paint, pod_color
from kubectl_gadget.rows.rows import Rows

Read = Callable[[Rows], list[Sequence[str]]]
"""Reads all columns of some rows, one list of texts per heading; they are not escaped yet."""

_POD_COLUMNS = frozenset({"pod", "container"})


class TableSink(StreamSink):
    """A table. `read` returns the cells; None reads the columns that the headings name. On a terminal that is too
    narrow, lines wrap if that is allowed (see fit())."""

    def __init__(
        self,
        stream: TextIO,
        headings: Sequence[Heading],
        *,
        read: Read | None = None,
        terminal: Terminal | None = None,
        color: bool = False,
        header: bool = True,
        wraps: bool = True,
    ) -> None:
        super().__init__(stream)
        self._headings = list(headings)
        self._read = read or self._columns
        self._terminal = terminal
        self._color = color
        self._header = header
        self._wraps = wraps
        self._seen = [0] * len(self._headings)
        self._terminal_width = 0
        self._begun = False

    def write_chunk(self, rows: Rows) -> None:
        columns = self._read(rows)
        self.write_cells(columns, self._colors(rows, columns))

    def write_cells(self, cells: Sequence[Sequence[str]], colors: Mapping[int, Sequence[str]] = {}) -> None:
        """Prints rows, given as columns of texts that are not escaped yet; `colors` are the cells' colors, by column
        number."""
        count = len(cells[0]) if cells else 0
        columns = list(map(_escaped, cells))
        widest_now = [widest(column.texts) for column in columns]
        self._seen = list(map(max, self._seen, widest_now))
        self._begin()
        widths = self._widths()
        template, prepared = "", list[Sequence[str]]()
        for number, heading in enumerate(self._headings):
            last = number == len(self._headings) - 1
            width, column = widths[number], columns[number]
            if widest_now[number] <= width and number not in colors and column.is_ascii:
                sign = "" if heading.align == "right" else "-"
                cell = "%s" if last and sign else f"%{sign}{width}s"
                if len(column.texts) == 1:
                    template += (cell % column.texts[0]).replace("%", "%%")
                else:
                    template += cell
                    prepared.append(column.texts)
            else:
                texts = column.texts if len(column.texts) == count else [column.texts[0]] * count
                texts = _prepare(
                    texts, width if self._terminal else None, heading, 0 if last and heading.align == "left" else width
                )
                if number in colors:
                    texts = list(map(paint, texts, colors[number]))
                template += "%s"
                prepared.append(texts)
            template += "\n" if last else GAP
        rows = zip(*prepared, strict=True) if prepared else repeat((), count)
        self._stream.write("".join(map(template.__mod__, rows)))

    def close(self) -> None:
        self._begin()
        self.flush()

    def _columns(self, rows: Rows) -> list[Sequence[str]]:
        return [cells(rows, heading.name) for heading in self._headings]

    def _widths(self) -> list[int]:
        if self._terminal is not None:
            return fit(self._headings, self._seen, self._terminal.width(), wraps=self._wraps)
        titles = [text_width(heading.title) if self._header else 0 for heading in self._headings]
        return [
            max(heading.width, title, seen)
            for heading, title, seen in zip(self._headings, titles, self._seen, strict=True)
        ]

    def _begin(self) -> None:
        """Prints the header before the first rows, and again if the width of the terminal has changed."""
        width = self._terminal.width() if self._terminal is not None else 0
        if self._begun and width == self._terminal_width:
            return
        self._begun, self._terminal_width = True, width
        if not self._header:
            return
        titles = []
        for number, (heading, room) in enumerate(zip(self._headings, self._widths(), strict=True)):
            title = cut(escape(heading.title), room) if self._terminal is not None else escape(heading.title)
            last = number == len(self._headings) - 1 and heading.align == "left"
            titles.append(title if last else pad(title, room, heading.align))
        self._stream.write(GAP.join(titles) + "\n")

    def _colors(self, rows: Rows, columns: Sequence[Sequence[str]]) -> dict[int, list[str]]:
        """Colors of the cells, by column number: each pod has its own color, errors are red."""
        if not self._color:
            return {}
        found: dict[int, list[str]] = {}
        for number, heading in enumerate(self._headings):
            if heading.name in _POD_COLUMNS:
                keys = pod_keys(rows)
                known = {key: pod_color(key) for key in set(keys)}
                found[number] = [known[key] for key in keys]
            elif heading.alarm:
                found[number] = [RED if cell not in ("0", "") else "" for cell in columns[number]]
        return found


class _Column(NamedTuple):
    """The texts of a column, safe to print; a single one if all rows have the same."""

    texts: Sequence[str]
    is_ascii: bool


def _escaped(column: Sequence[str]) -> _Column:
    texts = column[:1] if column and column.count(column[0]) == len(column) else column
    joined = "".join(texts)
    if joined.isprintable():
        return _Column(texts, joined.isascii())
    texts = list(map(escape, texts))
    return _Column(texts, "".join(texts).isascii())


def _prepare(column: Sequence[str], limit: int | None, heading: Heading, width: int) -> list[str]:
    """Cells cut to `limit` and padded to `width`; each distinct text is processed once."""
    known = {}
    for text in set(column):
        shown = text if limit is None else cut(text, limit)
        known[text] = pad(shown, limit or width if heading.align == "right" else width, heading.align)
    return [known[text] for text in column]
