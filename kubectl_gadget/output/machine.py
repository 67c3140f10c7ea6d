"""Formats for machines: JSON lines, YAML documents, CSV. Values are exact and the text is always valid.

The trap: a byte that is not UTF-8 has no place in any of them; the text then has U+FFFD, and the member NAME_bytes
beside it has the exact bytes in base64 (docs/design.md).
"""

import csv
import json
from collections.abc import Sequence
from typing import Any, TextIO

from kubectl_gadget.events.rows import Rows
from kubectl_gadget.events.schema import Gadget
from kubectl_gadget.output.sink import Sink
from kubectl_gadget.views.columns import EVENT, member_names
from kubectl_gadget.views.rows import MemberRows


class JsonSink(Sink):
    """One JSON object per line."""

    def __init__(self, stream: TextIO, members: MemberRows) -> None:
        self._stream = stream
        self._members = members

    def write_chunk(self, rows: Rows) -> None:
        self._stream.write("\n".join(self._members.lines(rows)) + "\n")

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        self.flush()


class YamlSink(Sink):
    """One YAML document per row, each begun with `---`."""

    def __init__(self, stream: TextIO, members: MemberRows) -> None:
        import yaml

        self._stream = stream
        self._members = members
        self._dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

    def write_chunk(self, rows: Rows) -> None:
        import yaml

        for record in self._members.records(rows):
            text: str = yaml.dump(
                record,
                Dumper=self._dumper,
                sort_keys=False,
                allow_unicode=True,
                width=1 << 30,
                default_flow_style=False,
            )
            self._stream.write("---\n" + text)

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        self.flush()


class CsvSink(Sink):
    """CSV of RFC 4180, but lines end with a newline alone. Columns are the members of JSON, optional ones too."""

    def __init__(
        self, stream: TextIO, gadgets: Sequence[Gadget], columns: Sequence[str], *, header: bool = True
    ) -> None:
        self._stream = stream
        self._members = MemberRows(columns, event=len(gadgets) > 1)
        names = [name for gadget in gadgets for name in member_names(gadget, columns)]
        self._names = ([EVENT] if len(gadgets) > 1 else []) + list(dict.fromkeys(names))
        self._writer = csv.writer(stream, lineterminator="\n")
        self._header = header

    def start(self) -> None:
        if self._header:
            self._writer.writerow(self._names)
            self._header = False

    def write_chunk(self, rows: Rows) -> None:
        self.start()
        self._writer.writerows(
            [_cell(record.get(name)) for name in self._names] for record in self._members.records(rows)
        )

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        self.start()
        self.flush()


def _cell(value: Any) -> Any:
    """Lists and truth values as JSON writes them; null is empty."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, bool | list) else value
