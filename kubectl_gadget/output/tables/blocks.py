"""Tables that are no streams: one for each interval, or the one of a snapshot.

In a pipe each has its header and an empty line behind it, but for a snapshot's. The trap: widths are those of the block
alone, so a long name of the last interval does not stay.
"""

from collections.abc import Callable
from io import StringIO
from typing import TextIO

from kubectl_gadget.events.rows import Rows
from kubectl_gadget.output.sink import Sink

MakeTable = Callable[[TextIO], Sink]


class BlockTable(Sink):
    """`make_table` gives a new table, which prints its header with the first rows, or at its end."""

    def __init__(self, stream: TextIO, make_table: MakeTable, once: bool) -> None:
        self._stream = stream
        self._make_table = make_table
        self._once = once
        self._printed = False

    def write_block(self, rows: Rows) -> None:
        if self._printed and rows.is_rest and not len(rows):
            return  # a moment before the end in which nothing happened is no interval
        if self._printed:
            self._stream.write("\n")
        self._printed = True
        self._stream.write(table_text(self._make_table, rows))

    def write_chunk(self, rows: Rows) -> None:
        self.write_block(rows)

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        """The header of a snapshot without rows says that it is one."""
        if self._once and not self._printed:
            self._stream.write(table_text(self._make_table, None))
        self.flush()


def table_text(make_table: MakeTable, rows: Rows | None) -> str:
    """A whole table."""
    text = StringIO()
    table = make_table(text)
    if rows is not None:
        table.write(rows)
    table.close()
    return text.getvalue()
