"""Prints the rows of an answer to SQL, in pieces, so that a large answer needs little memory.

The trap: values come from containers, so tables escape them; widths of a table are those of its first piece.
"""

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, TextIO

from kubectl_gadget.analysis.queries import QueryResult
from kubectl_gadget.output.escape import csv_line, escape, json_line
from kubectl_gadget.output.machine import csv_cell, yaml_text
from kubectl_gadget.output.tables import text_width

_WIDEST = 60
"""Cells are padded to this width at most; a longer one moves only the rest of its own line."""


def print_answer(answer: QueryResult, format: str, stream: TextIO) -> None:
    """Raises GadgetError, and OSError of the stream."""
    _PRINTERS[format](answer, stream)
    stream.flush()


def _table(answer: QueryResult, stream: TextIO) -> None:
    widths: list[int] | None = None
    for rows in chain(answer.rows(), [[]]):
        lines = [[escape(name).upper() for name in answer.names]] if widths is None else []
        lines += [[_cell(value) for value in row] for row in rows]
        if widths is None:
            widths = [min(_WIDEST, max(map(text_width, column))) for column in zip(*lines, strict=True)]
        for line in lines:
            cells = (text + " " * (width - text_width(text)) for text, width in zip(line, widths, strict=True))
            stream.write("  ".join(cells).rstrip() + "\n")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return (
        escape(value) if isinstance(value, str) else str(value) if isinstance(value, int | float) else json_line(value)
    )


def _json(answer: QueryResult, stream: TextIO) -> None:
    for rows in answer.rows():
        stream.writelines(json_line(dict(zip(answer.names, row, strict=True))) + "\n" for row in rows)


def _yaml(answer: QueryResult, stream: TextIO) -> None:
    for rows in answer.rows():
        stream.writelines("---\n" + yaml_text(dict(zip(answer.names, row, strict=True))) for row in rows)


def _csv(answer: QueryResult, stream: TextIO) -> None:
    stream.write(csv_line(answer.names))
    for rows in answer.rows():
        stream.writelines(csv_line([csv_cell(value, False) for value in row]) for row in rows)


_PRINTERS: Mapping[str, Callable[[QueryResult, TextIO], None]] = {
    "table": _table,
    "json": _json,
    "yaml": _yaml,
    "csv": _csv,
}
