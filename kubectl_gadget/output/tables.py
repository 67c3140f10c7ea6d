"""Tables as text: of streams, whose rows are printed as they come, and blocks, one per interval or snapshot."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from io import StringIO
from itertools import repeat
from typing import NamedTuple, TextIO

from kubectl_gadget.output.columns import Heading
from kubectl_gadget.output.escape import escape
from kubectl_gadget.output.row_texts import cells, pod_keys
from kubectl_gadget.output.sink import Sink, StreamSink
from kubectl_gadget.output.terminal import RED, Terminal, paint, pod_color
from kubectl_gadget.rows.rows import Rows

# Widths of texts and columns, in terminal cells rather than characters.


GAP = "  "
ELLIPSIS = "…"
_STRETCH_LEAST = 12
_TEXT_LEAST = 10


def text_width(text: str) -> int:
    """Width of a printable text in cells."""
    if text.isascii():
        return len(text)
    from wcwidth import wcswidth  # its tables take 10 ms

    return max(wcswidth(text), 0)


def widest(texts: Sequence[str]) -> int:
    """Width of the widest text in cells."""
    if not texts:
        return 0
    if "".join(texts).isascii():
        return max(map(len, texts))
    return max(map(text_width, texts))


def cut(text: str, width: int) -> str:
    """The text cut to at most `width` cells; an ellipsis marks the cut."""
    if text_width(text) <= width:
        return text
    if text.isascii():
        return text[: width - 1] + ELLIPSIS
    from wcwidth import wcwidth

    room, kept = width - 1, 0
    for number, character in enumerate(text):
        kept += max(wcwidth(character), 0)
        if kept > room:
            return text[:number] + ELLIPSIS
    return text


def pad(text: str, width: int, align: str) -> str:
    """The text padded with spaces to `width` cells."""
    blanks = " " * (width - text_width(text))
    return blanks + text if align == "right" else text + blanks


def fit(headings: Sequence[Heading], seen: Sequence[int], available: int, *, wraps: bool = False) -> list[int]:
    """Widths for a terminal of `available` columns. `seen` has the widest cell of each column so far.

    Width is taken away in this order: what stretching columns have beyond their default width, then spaces, then
    stretching columns down to a few cells, then all others down to their titles. With `wraps`, no number is cut, and a
    name only while it stays recognizable, or not at all if it must stay whole: instead the line continues in the
    next one, as in kubectl's tables, and fills it before anything is cut.
    """
    room = available - len(GAP) * (len(headings) - 1)
    widths = [max(heading.width, text_width(heading.title)) for heading in headings]
    least = [text_width(heading.title) for heading in headings]
    excess = sum(widths) - room
    if excess > 0:
        floors = [max(low, _STRETCH_LEAST) for low in least]
        others = [n for n, h in enumerate(headings) if not h.stretch]
        excess = _shrink(widths, others, list(map(max, least, seen)), excess)
        excess = _shrink(widths, [n for n, h in enumerate(headings) if h.stretch], floors, excess)
        if wraps:
            least = [
                max(low, width if heading.whole or heading.align == "right" else min(width, _TEXT_LEAST))
                for low, width, heading in zip(least, seen, headings, strict=True)
            ]
        excess = _shrink(widths, others, least, excess)
        if not wraps:
            _shrink(widths, list(range(len(widths))), [1] * len(widths), excess)
        if not wraps or excess == 0:
            return widths
        excess = -(-excess % available)
    for number, heading in enumerate(headings):
        if not heading.stretch:
            wider = min(max(seen[number] - widths[number], 0), -excess)
            widths[number] += wider
            excess += wider
    stretching = [number for number, heading in enumerate(headings) if heading.stretch]
    for place, number in enumerate(stretching):
        share = -excess // (len(stretching) - place)
        widths[number] += share
        excess += share
    return widths


def fitting(
    headings: Sequence[Heading],
    available: int,
    narrow: Sequence[str] = (),
    keep: str = "",
    *,
    empty: Collection[str] = (),
    distinguishing: Collection[str] = (),
) -> list[Heading]:
    """The columns for a terminal of `available` columns, at least one.

    Columns are dropped in this order: the `empty` ones, those of `narrow`, then the last ones; those in
    `distinguishing`, which distinguish rows, go after all others, and the column `keep` is never dropped.
    """
    found = list(headings)
    order = [*narrow, *(heading.name for heading in reversed(headings) if heading.name not in narrow)]
    order.sort(key=lambda name: 0 if name in empty else 2 if name in distinguishing else 1)
    for name in order:
        if sum(map(_least, found)) + len(GAP) * (len(found) - 1) <= available or len(found) == 1:
            break
        found = [heading for heading in found if heading.name != name or name == keep]
    return found


def without(headings: Sequence[Heading], available: int, narrow: Iterable[str]) -> list[Heading]:
    """The columns for a terminal of `available` columns, without as many of `narrow` as it takes, in this order."""
    found = list(headings)
    for name in narrow:
        if sum(map(_least, found)) + len(GAP) * (len(found) - 1) <= available:
            break
        found = [heading for heading in found if heading.name != name]
    return found


def _least(heading: Heading) -> int:
    """The minimum useful width of a column in cells: numbers cannot be cut, names and paths can."""
    title = text_width(heading.title)
    if heading.align == "right":
        return max(title, heading.width)
    return max(title, min(heading.width, _STRETCH_LEAST if heading.stretch else _TEXT_LEAST))


def _shrink(widths: list[int], columns: list[int], least: Sequence[int], excess: int) -> int:
    """Takes `excess` cells from these columns, the widest first; returns what could not be taken."""
    while excess > 0:
        shrinkable = [number for number in columns if widths[number] > least[number]]
        if not shrinkable:
            return excess
        widths[max(shrinkable, key=lambda number: widths[number] - least[number])] -= 1
        excess -= 1
    return 0


# The table of a stream: rows are printed as they come, so widths are fixed before all rows are known.


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


# Tables that are not streams: one per interval, or one for a snapshot.


MakeTable = Callable[[TextIO], Sink]


class BlockTable(StreamSink):
    """`make_table` returns a new table, which prints its header with the first rows, or at its end."""

    def __init__(self, stream: TextIO, make_table: MakeTable, once: bool) -> None:
        super().__init__(stream)
        self._make_table = make_table
        self._once = once
        self._printed = False

    def write_block(self, rows: Rows) -> None:
        if self._printed and rows.is_rest and not len(rows):
            return  # an empty rest of an interval is not printed
        if self._printed:
            self._stream.write("\n")
        self._printed = True
        self._stream.write(table_text(self._make_table, rows))

    def write_chunk(self, rows: Rows) -> None:
        self.write_block(rows)

    def close(self) -> None:
        """Flushes; for a snapshot without rows, prints the header, which says so."""
        if self._once and not self._printed:
            self._stream.write(table_text(self._make_table, None))
        self.flush()


def table_text(make_table: MakeTable, rows: Rows | None) -> str:
    text = StringIO()
    table = make_table(text)
    if rows is not None:
        table.write(rows)
    table.close()
    return text.getvalue()
