"""Chooses the columns of a live table when the terminal is too narrow for all of them.

Columns that were empty in all rows so far are dropped first; columns that distinguish the rows on the screen are
dropped last. The trap: rows change every second, so a column that once had a value, or once distinguished two rows,
keeps that status; otherwise columns would come and go.
"""

from collections.abc import Callable, Sequence

from kubectl_gadget.output.shown_columns import Heading
from kubectl_gadget.output.tables.widths import fitting
from kubectl_gadget.rows.rows import Rows

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
