"""Machine-readable formats: JSON lines, YAML documents, CSV. Values are exact and the text is always valid.

The trap: none of them can hold a byte that is not UTF-8; the text then has U+FFFD, and the member NAME_bytes has the
exact bytes in base64 (docs/design/records.md).
"""

from collections.abc import Sequence
from typing import Any, TextIO

import numpy as np

from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.output.escape import csv_line, escape, is_printable, json_line
from kubectl_gadget.output.joined_columns import JoinedColumns
from kubectl_gadget.output.row_texts import LATE, MemberRows
from kubectl_gadget.output.shown_columns import EVENT, member_names
from kubectl_gadget.output.sink import StreamSink
from kubectl_gadget.output.text_cells import csv_cells, yaml_cells
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.columns.wall_time import Timestamps
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.yaml_files import safe_dumper


def gap_record(node: str, seconds: float, until_ns: int) -> dict[str, Any]:
    """The record of a time span in which a node's rows are missing; `timestamp` is its end. It is not a row, so it has
    a member that no row has, and none of the gadget's own members."""
    (timestamp,) = Timestamps(np.array([until_ns], np.int64)).values()
    return {"timestamp": timestamp, "node": node, "gap_seconds": seconds}


_LINES_AT_ONCE = 512
"""Text of this many rows is in memory three times: as lines, as one text, and encoded."""


class JsonSink(StreamSink):
    """One JSON object per line."""

    def __init__(self, stream: TextIO, members: MemberRows) -> None:
        super().__init__(stream)
        self._members = members

    def write_chunk(self, rows: Rows) -> None:
        lines = self._members.lines(rows)
        for start in range(0, len(lines), _LINES_AT_ONCE):
            self._stream.write("\n".join([*lines[start : start + _LINES_AT_ONCE], ""]))

    def gap(self, node: str, seconds: float, until_ns: int) -> None:
        self._stream.write(json_line(gap_record(node, seconds, until_ns)) + "\n")


def yaml_text(record: dict[str, Any]) -> str:
    """A record as YAML, one member per line; what a terminal must not get is escaped."""
    import yaml

    text: str = yaml.dump(
        record, Dumper=safe_dumper(), sort_keys=False, allow_unicode=is_printable(record), width=1 << 30
    )
    return text


class YamlSink(StreamSink):
    """One YAML document per row, each starting with `---`."""

    def __init__(self, stream: TextIO, members: MemberRows) -> None:
        super().__init__(stream)
        self._members = members
        self._cells = yaml_cells(yaml_text)

    def write_chunk(self, rows: Rows) -> None:
        self._stream.write("".join(rows.collect(self._documents)))

    def gap(self, node: str, seconds: float, until_ns: int) -> None:
        self._stream.write("---\n" + yaml_text(gap_record(node, seconds, until_ns)))

    def _documents(self, batch: Batch) -> list[str]:
        joined, uncertain = JoinedColumns(len(batch)), set[int]()
        joined.text("---\n")
        if self._members.event:
            joined.text(yaml_text({EVENT: batch.gadget.event}))
        for column in self._cells.columns(self._members, batch, " '%s'\n"):
            uncertain.update(column.uncertain)
            before, after = (" ", "\n") if column.template == "%d" else ("", "")
            column.join(joined, f"{column.name}:{before}", after)
        if batch.late is not None:
            joined.few(batch.late.astype(np.intp), ("", f"{LATE}: true\n"))
        documents = [text if text != "---\n" else "---\n{}\n" for text in joined.rows()]
        if uncertain:
            rows = sorted(uncertain)
            for row, record in zip(rows, self._members.records_of(batch.select(np.array(rows))), strict=True):
                documents[row] = "---\n" + yaml_text(record)
        return documents


class CsvSink(StreamSink):
    """CSV as in RFC 4180, but lines end with a newline alone. Columns are the members of JSON, including optional ones.
    For streams the last column marks late rows, unless columns were chosen.

    CSV has no escapes of its own, so it is exact only in a file or a pipe; `escaped` is for a terminal.
    """

    def __init__(
        self,
        stream: TextIO,
        gadgets: Sequence[Gadget],
        columns: Sequence[str],
        *,
        header: bool = True,
        escaped: bool = False,
    ) -> None:
        super().__init__(stream)
        self._members = MemberRows(columns, event=len(gadgets) > 1)
        names = [name for gadget in gadgets for name in member_names(gadget, columns)]
        self._names = ([EVENT] if len(gadgets) > 1 else []) + list(dict.fromkeys(names))
        if not columns and any(gadget.kind == "stream" for gadget in gadgets):
            self._names.append(LATE)
        self._cells = csv_cells(lambda value: csv_cell(value, escaped))
        self._header = header
        self._escaped = escaped

    def start(self) -> None:
        if self._header:
            self._stream.write(csv_line(self._names))
            self._header = False

    def write_chunk(self, rows: Rows) -> None:
        self.start()
        if len(self._names) > 1:
            self._stream.write("\n".join(rows.collect(self._lines)))
            self._stream.write("\n")
            return
        self._stream.writelines(
            csv_line([csv_cell(record.get(name), self._escaped) for name in self._names])
            for record in self._members.records(rows)
        )

    def _lines(self, batch: Batch) -> list[str]:
        cells = {column.name: column for column in self._cells.columns(self._members, batch, "%s")}
        joined = JoinedColumns(len(batch))
        for number, name in enumerate(self._names):
            if number:
                joined.text(",")
            if name in cells:
                cells[name].join(joined)
            elif name == EVENT:
                joined.text(self._cells[json_line(batch.gadget.event)])
            elif name == LATE and batch.late is not None:
                joined.few(batch.late.astype(np.intp), ("", "true"))
        return joined.rows()

    def close(self) -> None:
        self.start()
        self.flush()


def csv_cell(value: Any, escaped: bool) -> Any:
    """A cell's value: lists, objects and booleans as in JSON; null is empty."""
    if escaped and isinstance(value, str):
        return escape(value)
    return json_line(value) if isinstance(value, bool | list | dict) else value
