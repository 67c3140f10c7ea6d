"""SQL over recordings, by DuckDB: in bounded memory, and without access to other files or the network.

A recording is first converted to Parquet in a temporary directory. A query may come from anybody, such as a
colleague or a web page, so it may read only the dataset and write nothing, unless the user allows more.
"""

import base64
import glob
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import chain, count
from math import isfinite, isnan
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from kubectl_gadget.analysis.conversion import to_parquet
from kubectl_gadget.analysis.views import definitions
from kubectl_gadget.errors import GadgetError, UsageError, require
from kubectl_gadget.output.escape import csv_line, escape, json_line
from kubectl_gadget.output.machine import csv_cell, yaml_text
from kubectl_gadget.output.tables import text_width
from kubectl_gadget.recording.places import PathOrUrl
from kubectl_gadget.rows.amounts import Timestamps

_ROWS_AT_ONCE = 2048
MEMORY = 1 << 30
_SPILL = "64GB"
_HARMLESS = ("SELECT", "EXPLAIN", "CREATE", "DROP", "INSERT", "UPDATE", "DELETE", "TRANSACTION")
"""Kinds of statements that change nothing but tables in memory."""
_EXPLAIN = re.compile(r"\s*explain\b(\s+analyze\b)?(\s*\([\w\s,]*\))?", re.IGNORECASE)
"""Options have words only: in a comment, a parenthesis would not end them."""
_MOST_NS = (1 << 63) - 1
_BEGIN = datetime(1970, 1, 1)


class QueryResult:
    """The result of one statement."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.names = _different(reader.schema.names)

    def rows(self) -> Iterator[list[tuple[object, ...]]]:
        """Yields the rows in pieces, with values as in JSON. Raises GadgetError."""
        while (batch := _next(self._reader)) is not None:
            if len(batch):
                yield list(zip(*(_values(column) for column in batch.columns), strict=True))


class Queries:
    """Answers SQL about a dataset. Call `close`."""

    def __init__(self, dataset: Path, spill: Path, *, memory: int = MEMORY, outside: bool = False) -> None:
        """`outside`: a query may also reach files and the network. Raises UsageError."""
        duckdb = require("duckdb", "recording query")
        require("pyarrow", "recording query")
        self._errors: type[Exception] = duckdb.Error
        self._outside = outside
        self.tables = sorted(path.name for path in dataset.iterdir() if next(path.rglob("*.parquet"), None))
        if not self.tables:
            raise UsageError(f"{dataset} has no Parquet tables", "a directory of recording convert -o parquet")
        self._connection = duckdb.connect(
            config={
                "temp_directory": str(spill),
                "max_temp_directory_size": _SPILL,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "python_enable_replacements": False,
            }
        )
        try:
            self._prepare(dataset, memory)
        except self._errors as error:
            self.close()
            first_line, *_ = str(error).split("\n")
            raise UsageError(f"{dataset} cannot be queried: {first_line}") from None

    def _prepare(self, dataset: Path, memory: int) -> None:
        execute = self._connection.execute
        execute(f"SET memory_limit = '{memory}B'")
        execute("SET TimeZone = 'UTC'")
        if not self._outside:
            folder = str(dataset.resolve()).replace("'", "''")
            # The patterns of the views are compared, too, before they are expanded.
            execute(f"SET allowed_directories = ['{folder}', '{glob.escape(folder)}']")
            execute("SET enable_external_access = false")
        execute("SET lock_configuration = true")
        for text in definitions(dataset.resolve(), self.tables):
            execute(text)

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def ask(self, sql: str) -> Iterator[QueryResult]:
        """Yields the result of each statement that has one. Raises UsageError for what is wrong with the SQL."""
        try:
            statements = self._connection.extract_statements(sql)
            for statement in statements:
                self._check(statement)
            for statement in statements:
                found = self._connection.sql(statement.query)
                if found is not None:
                    yield QueryResult(found.to_arrow_reader(_ROWS_AT_ONCE))
        except self._errors as error:
            raise UsageError(f"SQL: {_shortened(error)}") from None

    def _check(self, statement: Any) -> None:
        if self._outside:
            return
        kind = str(statement.type).rpartition(".")[2]
        if kind == "EXPLAIN":
            inner = _EXPLAIN.match(statement.query)
            rest = self._connection.extract_statements(statement.query[inner.end() :]) if inner else []
            kind = str(rest[0].type).rpartition(".")[2] if rest else "this EXPLAIN"
        if kind not in _HARMLESS:
            raise UsageError(f"SQL: {kind} is refused, since it may reach other files", "--allow-files")


@contextmanager
def opened(
    sources: Sequence[PathOrUrl], stderr: TextIO, *, memory: int = MEMORY, outside: bool = False
) -> Iterator[Queries]:
    """Opens recordings, or one directory of Parquet files. Raises GadgetError."""
    folders = [source for source in sources if isinstance(source, Path) and source.is_dir()]
    if folders and len(sources) > 1:
        raise UsageError("a directory of Parquet files must be queried alone", f"recording convert FILE {folders[0]}")
    require("duckdb", "recording query")
    try:
        work = Path(tempfile.mkdtemp(prefix="kubectl-gadget-"))
    except OSError as error:
        raise GadgetError(
            f"cannot create a temporary directory: {error.strerror}", "set TMPDIR to another one"
        ) from None
    try:
        dataset = folders[0] if folders else work / "dataset"
        if not folders:
            code, _ = to_parquet(sources, dataset, stderr, quiet=True)
            if code > 1:
                raise GadgetError("interrupted")
        else:
            _report_losses(dataset, stderr)
        queries = Queries(dataset, work / "spilled", memory=memory, outside=outside)
        try:
            yield queries
        finally:
            queries.close()
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _report_losses(dataset: Path, stderr: TextIO) -> None:
    """Reports what is missing in the recordings of a dataset, from the metadata of one file of each."""
    from pyarrow import ArrowException, parquet

    reported: set[tuple[str, str]] = set()
    for path in sorted(dataset.glob("*/date=*/run=*/*.parquet")):
        recording = path.parent.name, path.name.rpartition("-")[0]
        if recording in reported:
            continue
        try:
            loss = json.loads((parquet.read_metadata(path).metadata or {})[b"kubectl_gadget.loss"])
            said = ", ".join(_losses(loss))
        except (ArrowException, ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError):
            continue  # not every file has it; what cannot be read at all is reported with the answer
        reported.add(recording)
        if said:
            stderr.write(escape(f"{path.parent.name}: rows are missing: {said}") + "\n")


def _losses(loss: dict[str, Any]) -> Iterator[str]:
    # A dataset of an earlier version does not say who was traced from when to when.
    yield from map(str, loss.get("doubts", ["it is unknown who was traced when"]))
    for key, words in (
        ("damaged_segments", "damaged segments"),
        ("dropped_bytes", "bytes that could not be written in time"),
        ("unreadable_frames", "unreadable frames"),
    ):
        if loss[key]:
            yield f"{loss[key]:,} {words}"
    if loss["cut"]:
        yield "the end of the recording"


def _different(names: Sequence[str]) -> list[str]:
    """The names, each once: a record of JSON would keep the last of several members of the same name."""
    found: dict[str, None] = {}
    for name in names:
        others = (f"{name}_{number}" for number in count(1))
        found[name if name not in found else next(other for other in others if other not in {*found, *names})] = None
    return list(found)


def _next(reader: Any) -> Any:
    try:
        return reader.read_next_batch()
    except StopIteration:
        return None
    except Exception as error:  # pyarrow and DuckDB have no base in common
        raise UsageError(f"SQL: {_shortened(error)}") from None


def _values(column: Any) -> list[Any]:
    """A column as values of JSON; times as in the project's JSON."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_timestamp(kind):
        scale = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1000, "ns": 1}[kind.unit]
        numbers = column.cast(pa.int64()).to_pylist()
        if any(number is not None and abs(number) * scale > _MOST_NS for number in numbers):
            return [None if number is None else _far_time(number, scale) for number in numbers]
        texts = Timestamps(np.array([(number or 0) * scale for number in numbers], np.int64)).texts()
        return [None if number is None else text for text, number in zip(texts, numbers, strict=True)]
    return [plain(value) for value in column.to_pylist()]


def _far_time(number: int, scale: int) -> str:
    """A time that a number of ns in 64 bits may not hold."""
    if abs(number) == _MOST_NS:
        return "infinity" if number > 0 else "-infinity"
    try:
        return f"{(_BEGIN + timedelta(microseconds=number * scale // 1000)).isoformat(timespec='microseconds')}000Z"
    except OverflowError:
        return f"{number * scale} ns"


def plain(value: object) -> object:
    if isinstance(value, float) and not isfinite(value):
        return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list) and all(isinstance(item, tuple) and len(item) == 2 for item in value) and value:
        return {str(key): plain(item) for key, item in value}
    if isinstance(value, list):
        return list(map(plain, value))
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return str(value)


def _shortened(error: Exception) -> str:
    """Return DuckDB's message, without the lines that show the place in a whole page of SQL."""
    return "\n".join(line for line in str(error).splitlines() if line.strip())[:1000]


# Answers are printed in pieces, so that a large one needs little memory. Values come from containers, so tables escape
# them.

_WIDEST = 60
"""Cells are padded to the widths of the first piece, and to this at most; longer ones move the rest of their line."""


def print_answer(answer: QueryResult, format: str, stream: TextIO) -> None:
    """Print an answer. Raises GadgetError, and OSError of the stream."""
    _PRINTERS[format](answer, stream)
    stream.flush()


def _print_table(answer: QueryResult, stream: TextIO) -> None:
    widths: list[int] | None = None
    for rows in chain(answer.rows(), [[]]):
        lines = [[escape(name).upper() for name in answer.names]] if widths is None else []
        lines += [[_cell(value) for value in row] for row in rows]
        if widths is None:
            widths = [min(_WIDEST, max(map(text_width, column))) for column in zip(*lines, strict=True)]
        for line in lines:
            cells = (text + " " * (width - text_width(text)) for text, width in zip(line, widths, strict=True))
            stream.write("  ".join(cells).rstrip() + "\n")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return (
        escape(value) if isinstance(value, str) else str(value) if isinstance(value, int | float) else json_line(value)
    )


def _print_json(answer: QueryResult, stream: TextIO) -> None:
    for rows in answer.rows():
        stream.writelines(json_line(dict(zip(answer.names, row, strict=True))) + "\n" for row in rows)


def _print_yaml(answer: QueryResult, stream: TextIO) -> None:
    for rows in answer.rows():
        stream.writelines("---\n" + yaml_text(dict(zip(answer.names, row, strict=True))) for row in rows)


def _print_csv(answer: QueryResult, stream: TextIO) -> None:
    stream.write(csv_line(answer.names))
    for rows in answer.rows():
        stream.writelines(csv_line([csv_cell(value, False) for value in row]) for row in rows)


_PRINTERS: Mapping[str, Callable[[QueryResult, TextIO], None]] = {
    "table": _print_table,
    "json": _print_json,
    "yaml": _print_yaml,
    "csv": _print_csv,
}
