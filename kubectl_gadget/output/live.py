"""Chooses the columns of a live table when the terminal is too narrow for all of them.

Columns that were empty in all rows so far are dropped first; columns that distinguish the rows on the screen are
dropped last. Rows change every second, so a column that once had a value, or once distinguished two rows,
keeps that status; otherwise columns would come and go.
"""

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO

from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.output.columns import Heading
from kubectl_gadget.output.escape import escape
from kubectl_gadget.output.sink import StreamSink
from kubectl_gadget.output.tables import MakeTable, cut, fitting, table_text, text_width
from kubectl_gadget.output.terminal import Terminal
from kubectl_gadget.rows.arrangement import Arrangement
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.tables import sort
from kubectl_gadget.wording import count

if TYPE_CHECKING:
    from kubectl_gadget.filters.filter import Filter


_EMPTY = frozenset({"-", "", '""'})


class LiveColumns:
    """The columns of one table. `keys` are the columns that identify a row; those in `narrow` are dropped first."""

    def __init__(
        self,
        headings: Sequence[Heading],
        keys: Sequence[str],
        narrow: Sequence[str],
        read: Callable[[Rows, str], Sequence[str]],
    ) -> None:
        self._headings = headings
        self._keys = keys
        self._narrow = narrow
        self._read = read
        self._full: set[str] = set()
        self._distinguishing: set[str] = set()

    def look(self, rows: Rows) -> None:
        """Takes the rows that are on the screen now."""
        if not len(rows):
            return
        cells = {heading.name: self._read(rows, heading.name) for heading in self._headings}
        self._full |= {name for name, column in cells.items() if not _EMPTY.issuperset(column)}
        kept = [name for name in self._keys if name in cells]
        different = len(set(zip(*(cells[name] for name in kept), strict=True)))
        for name in (*self._narrow, *reversed(self._keys)):
            if name not in kept:
                continue
            others = [other for other in kept if other != name]
            if others and len(set(zip(*(cells[other] for other in others), strict=True))) == different:
                kept = others
        if len(rows) > 1:
            self._distinguishing |= set(kept)

    def fitting(self, available: int, sorted_by: str) -> list[Heading]:
        """The columns for a terminal of `available` columns."""
        empty = [heading.name for heading in self._headings if self._full and heading.name not in self._full]
        return fitting(
            self._headings, available, self._narrow, sorted_by, empty=empty, distinguishing=self._distinguishing
        )


# A table that is redrawn in place at each interval; keys sort, filter, pause and end it.


_LINES_AROUND = 2
"""The header, and the line with the cursor."""
_HELP = "<> r sort  f filter  p pause  h help  q quit"
HELP_LINES = (
    "<  >  s    sort by the previous or the next column",
    "r          reverse the order",
    "f  /       filter (CEL): Enter applies it, Esc cancels, Ctrl-U clears it,",
    "           Ctrl-W deletes a word",
    "Esc        remove the filter, and continue after a pause",
    "p  space   pause, and continue",
    "h  ?       this help; any key ends it",
    "q  Ctrl-C  quit",
)
_GAP = "  "
_ENTER, _ESCAPE, _ERASE = ("\r", "\n"), "\x1b", ("\x7f", "\b")
_ERASE_ALL, _ERASE_WORD = "\x15", "\x17"
"""Ctrl-U and Ctrl-W, as in terminals and shells."""


class LiveTable(StreamSink):
    """The live table of one gadget. `columns` are the columns shown; the arrangement has the initial sort order."""

    def __init__(
        self,
        stream: TextIO,
        make_table: MakeTable,
        terminal: Terminal,
        gadget: Gadget,
        columns: Sequence[str],
        arrangement: Arrangement,
    ) -> None:
        super().__init__(stream)
        self._make_table = make_table
        self._terminal = terminal
        self._gadget = gadget
        self._columns = list(columns)
        self._order = list(arrangement.sort)
        self._max_rows = arrangement.max_rows
        self._lock = threading.Lock()
        self._rows: Rows | None = None
        self._drawn = 0
        self._paused = False
        self._filter: Filter | None = None
        self._typed: str | None = None
        self._filter_error = ""
        self._shows_help = False
        self.quit: Callable[[], object] = lambda: None
        """called when the user ends the run"""
        self.look: Callable[[Rows], object] = lambda _: None
        """called with the rows before they are drawn"""
        self.hidden: Callable[[], int] = lambda: 0
        """returns the number of columns that do not fit the terminal"""

    def write_block(self, rows: Rows) -> None:
        with self._lock:
            # The rest of a cut-short interval must not replace the last full table.
            if self._paused or (self._drawn and rows.is_rest):
                return
            self._rows = rows.everything
            self._draw()

    def write_chunk(self, rows: Rows) -> None:
        self.write_block(rows)

    def take_keys(self, quit: Callable[[], object]) -> Callable[[str], None]:
        self.quit = quit
        return self.key

    def key(self, key: str) -> None:
        """Handles a key. May be called from any thread."""
        with self._lock:
            if self._shows_help and key != "q":
                self._shows_help = False
            elif self._typed is not None:
                self._type(key)
            else:
                self._command(key)
            if self._rows is not None:
                self._draw()
                self._stream.flush()

    @property
    def sorted_by(self) -> str:
        """The first column of the sort order; empty if there is none."""
        return self._order[0].removeprefix("-") if self._order else ""

    def _command(self, key: str) -> None:
        match key:
            case "q" | "\x03" | "\x04":
                self.quit()
            case "p" | " ":
                self._paused = not self._paused
            case "r" if self._order:
                first, *others = self._order
                self._order = [first[1:] if first.startswith("-") else f"-{first}", *others]
            case "<" | ">" | "s":
                self._sort_by_next(-1 if key == "<" else 1)
            case "h" | "?":
                self._shows_help = True
            case "\x1b":
                self._filter, self._paused = None, False
            case "f" | "/":
                self._typed = self._filter.text if self._filter else ""

    def _type(self, key: str) -> None:
        assert self._typed is not None
        if key in _ENTER:
            from kubectl_gadget.filters.filter import compile_filter

            try:
                self._filter = compile_filter(self._typed, [self._gadget]) if self._typed.strip() else None
            except UsageError as error:
                why = str(error).partition("\n")[0]
                self._filter_error = f"{why}. try: {error.remedy}" if error.remedy else why
                return
            self._typed, self._filter_error = None, ""
        elif key == _ESCAPE:
            self._typed, self._filter_error = None, ""
        elif key in _ERASE:
            self._typed = self._typed[:-1]
        elif key == _ERASE_ALL:
            self._typed, self._filter_error = "", ""
        elif key == _ERASE_WORD:
            self._typed = self._typed.rstrip().rpartition(" ")[0]
        elif key.isprintable():
            self._typed += key

    def _sort_by_next(self, step: int) -> None:
        now = self.sorted_by
        place = self._columns.index(now) + step if now in self._columns else 0
        name = self._columns[place % len(self._columns)]
        self._order = [f"-{name}" if name in self._gadget.totals.added_up else name]

    def _draw(self) -> None:
        assert self._rows is not None
        rows = self._rows
        if self._filter is not None:
            rows = rows.matching(self._filter.possible)
        rows = sort(rows, self._gadget, self._order)
        if self._shows_help:
            lines = HELP_LINES[: max(1, self._terminal.height() - _LINES_AROUND)]
            self._put([cut(line, max(1, self._terminal.width() - 1)) for line in lines])
            return
        status = self._status()
        room = max(1, self._terminal.height() - _LINES_AROUND - len(status))
        rows = rows.head(min(room, self._max_rows or room))
        self.look(rows)
        # Histograms have bars below the table if they fit.
        self._put([*table_text(self._make_table, rows).splitlines()[: room + 1], *status])

    def _put(self, lines: Sequence[str]) -> None:
        """Draws over the lines that were drawn before."""
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        # Each line is cleared after its text is written, not before, to avoid flicker.
        self._stream.write(up + "".join(f"\r{line}\x1b[K\n" for line in lines) + "\x1b[J")
        self._drawn = len(lines)

    def _status(self) -> list[str]:
        """The status and the keys: one line, or two if they do not fit."""
        room = max(1, self._terminal.width() - 1)
        if self._typed is not None:
            text = f"filter: {self._typed}_  {self._filter_error or '(a CEL expression; Enter, or Esc)'}"
            return [cut(escape(text), room)]
        parts = [f"sort: {','.join(self._order)}"] if self._order else []
        parts += [f"filter: {self._filter.text}"] if self._filter else []
        parts += ["PAUSED"] if self._paused else []
        if hidden := self.hidden():
            parts.append(f"{count(hidden, 'more column')}: widen, or --columns")
        lines = [_GAP.join([*parts, _HELP])]
        if text_width(lines[0]) > room and parts:
            lines = [_GAP.join(parts), _HELP]
        return [cut(escape(line), room) for line in lines]
