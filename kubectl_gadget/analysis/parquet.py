"""Writes rows as a dataset of Parquet files: DIR/TABLE/date=DAY/run=RUN/FIRST-N.parquet.

DuckDB, Spark, Trino and ClickHouse read many runs of many nodes in it as one table for each gadget. Names in
a recording may be anything, so only names made here become names of files; and a file gets its name only when it is
whole, so that an interrupted conversion leaves no half of a run in the dataset.
"""

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from kubectl_gadget.analysis.views import CONTAINERS, COVERAGE, table_name
from kubectl_gadget.errors import UsageError, require
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.output.sink import WholeSink
from kubectl_gadget.rows.amounts import Timestamps
from kubectl_gadget.rows.batch import Batch, decode, join
from kubectl_gadget.rows.containers import Container
from kubectl_gadget.rows.histogram import Buckets
from kubectl_gadget.rows.members import row_members
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.texts import CodedMarks, CodedTexts, FixedTexts, Nulls, SpanTexts, SpeltTexts, until_nul
from kubectl_gadget.rows.vectors import Array, Booleans, Mask, Numbers, Type, Vector, different, exact, is_exact
from kubectl_gadget.run.coverage import Coverage, missing

pa: Any = require("pyarrow", "Parquet")
pq: Any = require("pyarrow.parquet", "Parquet")

# Rows as columns of Arrow, with the names and types of JSON: times in ns, names coded by dictionaries. Texts are copied
# from the frames' bytes in C++, and what must be spelt in Python (paths, addresses) is spelt once for each different
# value. The schema must not depend on the rows, so it is made from a batch without rows, and every column is converted
# to it.

NAMES = pa.dictionary(pa.int32(), pa.string())
TIME = pa.timestamp("ns", tz="UTC")
_BUCKET = pa.struct([("from", pa.int64()), ("to", pa.int64()), ("count", pa.uint64())])
_MOST_OFFSET = (1 << 31) - 1


def schema_of(gadget: Gadget) -> object:
    empty = decode(gadget, "", b"")
    return pa.schema([(member.name, _type(member.type, member.read(empty))) for member in row_members(gadget)])


def record_batch(batch: Batch, schema: Any) -> Any:
    arrays = []
    for member, column in zip(row_members(batch.gadget), schema, strict=True):
        vector = batch.vector(member.name, member.read)
        if member.optional and vector.absent():
            is_bool = member.type == "bool"
            arrays.append(pa.array(np.zeros(len(batch), bool)) if is_bool else pa.nulls(len(batch), column.type))
        else:
            arrays.append(_fitted(_array(vector), column.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _type(type: Type, vector: Vector) -> object:
    if isinstance(vector, Timestamps):
        return TIME
    if isinstance(vector, Numbers):
        return pa.from_numpy_dtype(vector.array.dtype)
    if type == "text" and isinstance(vector, CodedTexts | CodedMarks | FixedTexts):
        return NAMES
    if type == "bool":
        return pa.bool_()
    return pa.string() if type == "text" else pa.list_(pa.string() if type == "texts" else _BUCKET)


def _fitted(array: Any, type: Any) -> Any:
    if array.type == type:
        return array
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), type)
    if pa.types.is_dictionary(type) and not pa.types.is_dictionary(array.type):
        return array.dictionary_encode().cast(type)
    return array.cast(type)


def _array(vector: Vector) -> object:
    match vector:
        case Timestamps():
            return pa.array(vector.wall_ns, pa.int64()).view(TIME)
        case Numbers():
            valid = vector.valid()
            return pa.array(vector.array, mask=None if valid is None else ~valid)
        case Booleans():
            return pa.array(vector.array)
        case CodedTexts() | CodedMarks():
            return _coded(vector.codes, vector.words)
        case FixedTexts():
            codes, found = _different(vector.array)
            names = [until_nul(text) for text in found]
            vector.is_exact = all(map(is_exact, names))
            return _coded(codes, names, vector.valid())
        case SpeltTexts():
            return _spelt(vector)
        case SpanTexts():
            codes, found = _different(vector)
            vector.is_exact = all(text is None or is_exact(text) for text in found)
            words = found if vector.is_exact else [None if text is None else exact(text) for text in found]
            return pa.array(words, pa.string()).take(pa.array(codes))
        case Nulls():
            return pa.nulls(len(vector))
        case Buckets():
            return pa.array(vector.values(), pa.list_(_BUCKET))
    values = vector.values()
    return pa.array(values, pa.string() if vector.type == "text" else pa.list_(pa.string()))


def _coded(codes: Array, words: Sequence[str | None], valid: Mask | None = None) -> object:
    """`words[codes[row]]`; null where the word is null, or `valid` is false."""
    numbers: dict[str, int] = {}
    places = [-1 if word is None else numbers.setdefault(exact(word), len(numbers)) for word in words]
    found = np.array(places, np.int32)[codes] if places else np.zeros(0, np.int32)
    absent = found < 0 if valid is None else (found < 0) | ~valid
    indices = pa.array(found, mask=absent if absent.any() else None)
    return pa.DictionaryArray.from_arrays(indices, pa.array(list(numbers), pa.string()))


def _spans(vector: SpanTexts) -> Any:
    lengths = np.where(vector.readable, vector.lengths, 0).astype(np.int64)
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    number = np.int32 if max(total, len(vector.bytes)) <= _MOST_OFFSET else np.int64  # half as many bytes to move
    places = np.arange(total, dtype=number) + np.repeat((vector.starts - (ends - lengths)).astype(number), lengths)
    offsets = np.concatenate([np.zeros(1, np.int64), ends])
    valid = None if vector.readable.all() else pa.py_buffer(np.packbits(vector.readable, bitorder="little"))
    buffers = [valid, pa.py_buffer(offsets), pa.py_buffer(vector.bytes[places])]
    return pa.Array.from_buffers(pa.large_binary(), len(lengths), buffers)


def _different(values: "Array | SpanTexts") -> tuple[Array, list[Any]]:
    """The number of each row's value in the second result, which holds each value once."""
    if isinstance(values, SpanTexts):
        if values.coded is None:
            values.coded = _coded_spans(values)
        return values.coded
    if values.dtype.kind == "S":
        size = values.dtype.itemsize
        whole = pa.Array.from_buffers(pa.binary(size), len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])
        coded = whole.dictionary_encode()
        return coded.indices.to_numpy().astype(np.int64), [text.rstrip(b"\0") for text in coded.dictionary.to_pylist()]
    numbers, places = different(values.view(np.uint8) if values.dtype == np.bool_ else values)
    return places, numbers.tolist()


def _coded_spans(values: SpanTexts) -> tuple[Array, list[object]]:
    if not values.readable.any():
        return np.zeros(len(values), np.int64), [None]
    coded = _spans(values).dictionary_encode()
    found = [text.decode("utf-8", "surrogateescape") for text in coded.dictionary.to_pylist()]
    codes = coded.indices.fill_null(len(found)).to_numpy(zero_copy_only=False)
    return codes.astype(np.int64), [*found, None]


def _spelt(vector: SpeltTexts) -> object:
    """Spells each different row once."""
    parts = [_different(values) for values in vector.inputs]
    numbers, size = np.zeros(len(vector), np.int64), 1
    for codes, found in parts:
        size *= max(1, len(found))
        if size >= 1 << 62:  # too many to number
            return pa.array(vector.values(), pa.string())
        if len(found) > 1:
            numbers = numbers * len(found) + codes
    coded = pa.array(numbers).dictionary_encode()
    left, values = coded.dictionary.to_numpy(), list[list[object]]()
    for _, found in reversed(parts):
        left, places = np.divmod(left, max(1, len(found)))
        values.insert(0, list(map(found.__getitem__, places.tolist())))
    texts = list(map(vector.spell, *values))
    vector.is_exact = all(text is None or is_exact(text) for text in texts)
    if not vector.is_exact:
        texts = [None if text is None else exact(text) for text in texts]
    return pa.array(texts, pa.string()).take(coded.indices)


# Files

_ROWS_AT_ONCE = 128 << 10
_BYTES_AT_ONCE = 64 << 20
_DAY_NS = 86_400_000_000_000
_MOST_DAYS = 1000
"""Of one run. A hostile recording may have times of any day; rows of further days go into the last day's files."""
_MOST_OPEN = 64
_OWNED = ("namespace", "pod", "container", "kind", "image", "container_id", "pod_uid", "runtime")


@dataclass(frozen=True)
class RunName:
    """The name that tells this recording's files from others in the dataset."""

    run: str
    """the same for all files of one run"""
    first: str
    """differs between them"""
    began_ns: int


@dataclass
class _UnwrittenRows:
    """Rows of one gadget that are not written yet."""

    gadget: Gadget
    schema: object
    batches: list[Batch] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0


class _OpenFile:
    """One Parquet file under construction."""

    def __init__(self, path: Path, schema: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = path
        self.partial = path.with_suffix(".partial")
        try:
            # Rows contain programs' arguments, so nobody else may read them.
            handle = os.open(self.partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        except FileExistsError:
            why = f"{self.partial} exists: another conversion is writing it, or has failed"
            raise UsageError(why, "remove it") from None
        self._file: BinaryIO = os.fdopen(handle, "wb")
        self._writer = pq.ParquetWriter(
            self._file,
            schema,
            compression="zstd",
            compression_level=1,
            version="2.6",
            use_dictionary=[_leaf(each) for each in schema if not pa.types.is_timestamp(each.type)],
        )

    def write(self, batch: object) -> None:
        self._writer.write_batch(batch)

    def close(self, metadata: Mapping[str, str]) -> None:
        self._writer.add_key_value_metadata(metadata)
        self._writer.close()
        self._file.close()

    def abandon(self) -> None:
        for end in (self._writer.close, self._file.close):
            with suppress(Exception):  # what is buffered does not fit on a full disk
                end()
        self.partial.unlink(missing_ok=True)


def _leaf(column: Any) -> str:
    """A column's name in Parquet. Dictionaries are for values that repeat; for times, one would be built in vain."""
    return f"{column.name}.list.element" if pa.types.is_list(column.type) else str(column.name)


class ParquetSink(WholeSink):
    """Takes the rows of one recording in any order. Call `finish`, or `abandon` after an error: `close` does nothing,
    since what was lost is known only after the last row."""

    def __init__(self, root: Path, name: RunName, gadgets: Sequence[Gadget]) -> None:
        """Raises UsageError when the dataset has this recording already."""
        self.rows: dict[str, int] = {}
        """by table"""
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._root, self._name = root, name
        self._day = name.began_ns // _DAY_NS
        self._waiting = {gadget.name: _UnwrittenRows(gadget, schema_of(gadget)) for gadget in gadgets}
        self._open: dict[tuple[str, int], _OpenFile] = {}
        self._closed: list[_OpenFile] = []
        self._named: list[Path] = []
        """files that already have their final names; removed if the conversion is interrupted"""
        self._parts: dict[tuple[str, int], int] = {}
        self._containers: dict[str, set[Container]] = {}
        # Arrow compresses without holding the interpreter, so this thread can decode the next rows.
        self._writer = ThreadPoolExecutor(1, "parquet")
        self._writing: Future[None] | None = None
        found = next(iter(root.glob(f"*/date=*/run={name.run}/{name.first}-*.parquet")), None)
        if found is not None:
            raise UsageError(f"{root} has this recording already: {found}", "another directory")

    def write(self, rows: Rows) -> None:
        """See Sink. The order of rows does not matter to a dataset."""
        for part in rows.everything.parts:
            waiting = self._waiting[part.gadget.name]
            waiting.batches.append(part)
            waiting.rows += len(part)
            waiting.bytes += part.nbytes
            if waiting.rows >= _ROWS_AT_ONCE or waiting.bytes >= _BYTES_AT_ONCE:
                self._write_out(waiting)

    def finish(self, metadata: Mapping[str, object], coverage: Coverage) -> None:
        """Write what waits and who was traced, and give all files their names. `metadata` goes into each of them, as
        JSON."""
        for waiting in self._waiting.values():
            self._write_out(waiting)
            if table_name(waiting.gadget) not in self.rows:  # a query must find a table without rows, too
                self._file(table_name(waiting.gadget), self._day, waiting.schema)
        self._written()
        self._writer.shutdown()
        self._write_containers()
        self._write_coverage(coverage)
        texts = {f"kubectl_gadget.{key}": json.dumps(value) for key, value in metadata.items()}
        for key in list(self._open):
            self._retire(key, texts)
        for file in self._closed:
            self._named.append(file.path)
            file.partial.rename(file.path)

    def abandon(self) -> None:
        self._writer.shutdown()
        for file in self._open.values():
            file.abandon()
        for path in (*(file.partial for file in self._closed), *self._named):
            path.unlink(missing_ok=True)
        for folder in {file.path.parent for file in (*self._open.values(), *self._closed)}:
            with suppress(OSError):  # not empty: of another run
                for place in (folder, folder.parent, folder.parent.parent):
                    place.rmdir()

    def _write_out(self, waiting: _UnwrittenRows) -> None:
        batches, waiting.batches, waiting.rows, waiting.bytes = waiting.batches, [], 0, 0
        table = table_name(waiting.gadget)
        for architecture in dict.fromkeys(batch.architecture for batch in batches):
            rows = join([batch for batch in batches if batch.architecture == architecture])
            self.rows[table] = self.rows.get(table, 0) + len(rows)
            self._note_containers(rows)
            days = rows.wall_ns() // _DAY_NS
            different = np.unique(days).tolist()
            for day in different:
                some = rows if len(different) == 1 else rows.select(days == day)
                columns = record_batch(some, waiting.schema)
                some.forget_columns()
                self._written()
                self._writing = self._writer.submit(self._file(table, day, waiting.schema).write, columns)
        for batch in batches:
            batch.forget_columns()

    def _written(self) -> None:
        """Waits until the last rows are written. Raises OSError."""
        pending, self._writing = self._writing, None
        if pending is not None:
            pending.result()

    def _file(self, table: str, day: int, schema: object) -> _OpenFile:
        if (table, day) not in self._parts and len(self._parts) >= _MOST_DAYS * len(self._waiting):
            day = next(reversed([known for name, known in self._parts if name == table]), day)
        found = self._open.get((table, day))
        if found is None:
            if len(self._open) >= _MOST_OPEN:
                self._retire(next(iter(self._open)), {})
            part = self._parts[table, day] = self._parts.get((table, day), -1) + 1
            date = datetime.fromtimestamp(day * 86400, UTC)
            folder = self._root / table / f"date={date:%Y-%m-%d}" / f"run={self._name.run}"
            found = self._open[table, day] = _OpenFile(folder / f"{self._name.first}-{part}.parquet", schema)
        return found

    def _retire(self, key: tuple[str, int], metadata: Mapping[str, str]) -> None:
        file = self._open.pop(key)
        self._closed.append(file)
        file.close(metadata)

    def _note_containers(self, rows: Batch) -> None:
        if rows.owners is None:
            return
        nodes = [rows.node] if rows.origins is None else rows.origins.nodes
        of_node = 0 if rows.origins is None else rows.origins.codes
        pairs, _ = different(rows.owners.codes * len(nodes) + of_node)
        for code, node in (divmod(pair, len(nodes)) for pair in pairs.tolist()):
            if rows.owners.containers[code].kind in ("container", "sandbox"):
                self._containers.setdefault(nodes[node], set()).add(rows.owners.containers[code])

    def _write_coverage(self, coverage: Coverage) -> None:
        """Write a row for each node that was selected."""
        times = [pa.field(name, pa.timestamp("ns", "UTC")) for name in ("selected", "attached", "until")]
        names = [pa.field(name, pa.string()) for name in ("cause", "why")]
        numbers = [pa.field("gap_seconds", pa.float64()), pa.field("lost", pa.int64())]
        rows = [
            {
                "node": exact(node.name),
                "selected": node.selected_ns or None,
                "attached": node.attached_ns or None,
                "until": node.until_ns or (coverage.ended_ns if node.attached_ns else 0) or None,
                "gap_seconds": round(node.gap_seconds, 3),
                "lost": missing(node.lost),
                "cause": exact(node.cause),
                "why": exact(node.why),
            }
            for node in coverage.nodes
        ]
        schema = pa.schema([pa.field("node", pa.string()), *times, *numbers, *names])
        self._file(COVERAGE, self._day, schema).write(pa.RecordBatch.from_pylist(rows, schema=schema))

    def _write_containers(self) -> None:
        items = [
            {"node": node, **{name: getattr(container, name) for name in _OWNED}}
            for node, found in self._containers.items()
            for container in found
            if not container.moved
        ]
        items.sort(key=lambda item: tuple(item.values()))
        schema = pa.schema([(name, NAMES) for name in ("node", *_OWNED)])
        columns = [[exact(item[name]) for item in items] for name in schema.names]
        arrays = [pa.array(column, pa.string()).dictionary_encode().cast(NAMES) for column in columns]
        batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
        self._file(CONTAINERS, self._day, schema).write(batch)
