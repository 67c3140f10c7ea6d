"""Tables that are not streams: one per interval, or one for a snapshot.

In a pipe, each has its header and is followed by an empty line, except for a snapshot. The trap: widths depend on the
block alone, so a long name in the last interval has no effect on the next one.
"""

from collections.abc import Callable
from io import StringIO
from typing import TextIO

from kubectl_gadget.output.sink import Sink, StreamSink
from kubectl_gadget.rows.rows import Rows

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
