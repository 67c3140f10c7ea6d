"""The cells of YAML and CSV, made from the JSON texts of whole columns: each different value is formatted once, by the
library, and simple ones without it.

The trap: the YAML library escapes per document: one unprintable character, and every character beyond ASCII in that
document is escaped. So the library writes rows with such characters as a whole.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TextIO

import numpy as np

from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.output.columns import EVENT, Codes, JoinedColumns, member_names
from kubectl_gadget.output.escape import csv_line, escape, is_printable, json_line
from kubectl_gadget.output.row_texts import LATE, MemberRows
from kubectl_gadget.output.sink import StreamSink
from kubectl_gadget.rows.amounts import Timestamps
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.kinds import Member
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.texts import PLAIN
from kubectl_gadget.rows.vectors import Few
from kubectl_gadget.yaml_files import safe_dumper

_MOST = 50_000
"""Different values whose cells are kept, of all columns."""
_LONGEST = 256
"""Longer texts are formatted each time: paths may have 4 KB, and several times as much with escapes."""
_PLAIN = re.compile(r'"[A-Za-z/][A-Za-z0-9_./-]*"')
"""JSON texts that neither YAML nor CSV quotes, unless YAML has a meaning for the word."""
_ABSENT = ("null", "false")
_WORDS = {"yes", "no", "true", "false", "on", "off", "null"}


class TextColumn(NamedTuple):
    """One member of a batch: `few` different cells, or a cell's `template` and a list for each placeholder of it."""

    name: str
    few: Few | None
    template: str
    values: Sequence[list[Any]]
    optional: bool
    """left out where it is null or false: its cells are empty there"""
    uncertain: list[int]
    """rows with characters beyond ASCII, or with escapes"""

    def join(self, joined: JoinedColumns, before: str = "", after: str = "") -> None:
        """Adds the member to the columns of `joined`, between two texts, which are left out where the member is."""
        if self.optional:
            words = self.few[1] if self.few else self.values[0]
            texts = [word and f"{before}{word}{after}" for word in words]
            joined.few(self.few[0], texts) if self.few else joined.each("%s", [texts])
            return
        joined.text(before)
        joined.few(*self.few) if self.few else joined.each(self.template, self.values)
        joined.text(after)


class Cells(dict[str, str]):
    """The cell of each JSON text, made once. `as_they_are` gets the texts of a column that JSON does not escape,
    joined, and returns whether they need no quotes in a cell, either."""

    def __init__(self, make: Callable[[str], str], as_they_are: Callable[[str], bool] = lambda texts: False) -> None:
        super().__init__()
        self._make = make
        self._as_they_are = as_they_are

    def __missing__(self, text: str) -> str:
        cell = self._make(text)
        if len(text) <= _LONGEST:
            if len(self) >= _MOST:
                self.clear()
            self[text] = cell
        return cell

    def columns(self, members: MemberRows, batch: Batch, timestamp: str) -> Iterator[TextColumn]:
        """The columns of a batch, in order. `timestamp` is the template of a wall time's cell."""
        for member in members.members(batch):
            vector = batch.vector(member.name, member.read)
            if member.optional and vector.absent():
                continue
            if isinstance(vector, Timestamps):
                template, lists = vector.pieces()
                yield TextColumn(member.name, None, timestamp % template, lists, False, [])
            elif found := vector.few():
                yield self._few(member, *found)
            else:
                yield self._each(member, *vector.json())

    def _few(self, member: Member, codes: Codes, words: Sequence[str]) -> TextColumn:
        bad = [code for code, word in enumerate(words) if _is_uncertain(word)]
        rows = np.flatnonzero(np.isin(codes, bad)).tolist() if bad else []
        cells = ["" if member.optional and word in _ABSENT else self[word] for word in words]
        return TextColumn(member.name, (codes, cells), "", (), member.optional, rows)

    def _each(self, member: Member, piece: str, values: Sequence[list[Any]]) -> TextColumn:
        if piece == "%d" and not member.optional:
            return TextColumn(member.name, None, piece, values, False, [])
        if piece == PLAIN and self._as_they_are("".join(values[0])):
            return TextColumn(member.name, None, "%s", values, member.optional, [])
        texts = values[0] if piece == "%s" else list(map(piece.__mod__, zip(*values, strict=True)))
        rows = [row for row, text in enumerate(texts) if _is_uncertain(text)] if _is_uncertain("".join(texts)) else []
        if member.optional:
            cells = ["" if text in _ABSENT else self[text] for text in texts]
        else:
            cells = list(map(self.__getitem__, texts))
        return TextColumn(member.name, None, "%s", (cells,), member.optional, rows)


def _is_uncertain(text: str) -> bool:
    return not text.isascii() or "\\u" in text


def yaml_cells(dump: Callable[[Any], str]) -> Cells:
    """What follows a member's name in a document, with the newline; `dump` writes a document."""

    def make(text: str) -> str:
        if _PLAIN.fullmatch(text) and text[1:-1].lower() not in _WORDS:
            return f" {text[1:-1]}\n"
        return dump({"k": json.loads(text)})[2:]

    return Cells(make)


def csv_cells(cell: Callable[[Any], Any]) -> Cells:
    """Cells of CSV; `cell` turns a value into what the library writes."""

    def make(text: str) -> str:
        if _PLAIN.fullmatch(text):
            return text[1:-1]
        if text.isdecimal():
            return text
        # A second cell, since an empty one alone is quoted.
        return csv_line([cell(json.loads(text)), ""])[:-2]

    return Cells(make, lambda texts: "," not in texts and texts.isascii())


# Machine-readable formats: JSON lines, YAML documents, CSV. Values are exact and the text is always valid.


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
