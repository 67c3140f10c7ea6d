"""Machine-readable formats: JSON lines, YAML documents, CSV. Values are exact and the text is always valid.

The trap: the YAML library escapes per document: one unprintable character, and every character beyond ASCII in that
document is escaped. So members are put together only if they have neither; other rows are written as a whole.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TextIO

import numpy as np

from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.output.columns import EVENT, member_names
from kubectl_gadget.output.escape import csv_line, escape, is_printable, json_line
from kubectl_gadget.output.row_texts import LATE, MemberRows
from kubectl_gadget.output.sink import StreamSink
from kubectl_gadget.rows.amounts import Timestamps
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.vectors import Numbers, Vector
from kubectl_gadget.yaml_files import safe_dumper


def gap_record(node: str, seconds: float, until_ns: int) -> dict[str, object]:
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


def yaml_text(record: dict[str, object]) -> str:
    """A record as YAML, one member per line; what a terminal must not get is escaped."""
    import yaml

    text: str = yaml.dump(
        record, Dumper=safe_dumper(), sort_keys=False, allow_unicode=is_printable(record), width=1 << 30
    )
    return text


_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
"""Texts that YAML does not quote, unless it has a meaning for the word."""
_WORDS = {"yes", "no", "true", "false", "on", "off", "null"}
_TIME = re.compile(r"[0-9-]{10}T[0-9:.]+Z")
_LONGEST = 256
"""Longer texts are formatted each time: paths may have 4 KB, and several times as much with escapes."""


class YamlSink(StreamSink):
    """One YAML document per row, each starting with `---`."""

    def __init__(self, stream: TextIO, members: MemberRows) -> None:
        super().__init__(stream)
        self._members = members

    def write_chunk(self, rows: Rows) -> None:
        self._stream.write("".join(f"---\n{_document(record)}" for record in self._members.records(rows)))

    def gap(self, node: str, seconds: float, until_ns: int) -> None:
        self._stream.write("---\n" + yaml_text(gap_record(node, seconds, until_ns)))


def _document(record: dict[str, object]) -> str:
    """A record as yaml_text() has it; the values that rows repeat are formatted once each."""
    parts = []
    for name, value in record.items():
        if type(value) is int:
            parts.append(f"{name}: {value}\n")
        elif isinstance(value, str) and value.isascii() and value.isprintable():
            parts.append(name)
            parts.append(yaml_string(value) if len(value) <= _LONGEST else _dumped(value))
        elif value is None or isinstance(value, bool):
            parts.append(f"{name}: {'null' if value is None else str(value).lower()}\n")
        else:
            return yaml_text(record)
    return "".join(parts) or yaml_text(record)


@lru_cache(50_000)
def yaml_string(value: str) -> str:
    """The text after a member's name."""
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return f": {value}\n"
    return f": '{value}'\n" if _TIME.fullmatch(value) else _dumped(value)


def _dumped(value: object) -> str:
    return yaml_text({"k": value})[1:]


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
        self._header = header
        self._escaped = escaped

    def start(self) -> None:
        if self._header:
            self._stream.write(csv_line(self._names))
            self._header = False

    def write_chunk(self, rows: Rows) -> None:
        self.start()
        lines: list[str] = []
        # Before Python 3.13 the library quotes only those ends of lines that are its own.
        writer = csv.writer(_Lines(lines), lineterminator="\r\n")
        writer.writerows(rows.collect(self._cells))
        self._stream.write("".join(lines))

    def _cells(self, batch: Batch) -> list[tuple[object, ...]]:
        known = {member.name: member for member in self._members.members(batch)}
        columns: list[Iterable[object]] = []
        for name in self._names:
            if name in known:
                columns.append(self._column(batch.vector(name, known[name].read), known[name].optional))
            elif name == LATE and batch.late is not None:
                columns.append("true" if late else "" for late in batch.late.tolist())
            else:
                columns.append([batch.gadget.event if name == EVENT else ""] * len(batch))
        return list(zip(*columns, strict=True))

    def _column(self, vector: Vector, optional: bool) -> Iterable[object]:
        if optional and vector.absent():
            return [""] * len(vector)
        if isinstance(vector, Numbers) or (vector.type == "text" and not self._escaped):
            return vector.values()
        cells = (csv_cell(value, self._escaped) for value in vector.values())
        return ("" if cell == "false" else cell for cell in cells) if optional else cells

    def close(self) -> None:
        self.start()
        self.flush()


def csv_cell(value: object, escaped: bool) -> object:
    """A cell's value: lists, objects and booleans as in JSON; null is empty."""
    if escaped and isinstance(value, str):
        return escape(value)
    return json_line(value) if isinstance(value, bool | list | dict) else value


class _Lines:
    """Takes the lines of a csv.writer, which ends each with CR and LF."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def write(self, line: str) -> None:
        self._lines.append(line[:-2] + "\n")
