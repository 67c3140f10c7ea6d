"""Rows as columns of Arrow, with the names and types of JSON: times in ns, names coded by dictionaries.

Works on whole columns: texts are copied from the frames' bytes in C++, and what must be spelt in Python (paths,
addresses) is spelt once for each different value. The trap: the schema must not depend on the rows, so it is made from
a batch without rows, and every column is converted to it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kubectl_gadget.extras import require
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.rows.batch import Batch, decode
from kubectl_gadget.rows.columns.histogram import Buckets
from kubectl_gadget.rows.columns.members import row_members
from kubectl_gadget.rows.columns.texts import (
    CodedMarks,
    CodedTexts,
    FixedTexts,
    Nulls,
    SpanTexts,
    SpeltTexts,
    until_nul,
)
from kubectl_gadget.rows.columns.wall_time import Timestamps
from kubectl_gadget.rows.vectors import Booleans, Mask, Numbers, Type, Vector, different, exact, is_exact

pa: Any = require("pyarrow", "Parquet")

NAMES = pa.dictionary(pa.int32(), pa.string())
TIME = pa.timestamp("ns", tz="UTC")
_BUCKET = pa.struct([("from", pa.int64()), ("to", pa.int64()), ("count", pa.uint64())])
_MOST_OFFSET = (1 << 31) - 1


def schema_of(gadget: Gadget) -> Any:
    empty = decode(gadget, "", b"")
    return pa.schema([(member.name, _type(member.type, member.read(empty))) for member in row_members(gadget)])


def record_batch(batch: Batch, schema: Any) -> Any:
    arrays = []
    for member, field in zip(row_members(batch.gadget), schema, strict=True):
        vector = batch.vector(member.name, member.read)
        if member.optional and vector.absent():
            absent = pa.nulls(len(batch), field.type) if member.type != "bool" else pa.array(np.zeros(len(batch), bool))
            arrays.append(absent)
        else:
            arrays.append(_fitted(_array(vector), field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _type(type: Type, vector: Vector) -> Any:
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


def _array(vector: Vector) -> Any:
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


def _coded(codes: npt.NDArray[Any], words: Sequence[str | None], valid: Mask | None = None) -> Any:
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


def _different(values: "npt.NDArray[Any] | SpanTexts") -> tuple[npt.NDArray[Any], list[Any]]:
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


def _coded_spans(values: SpanTexts) -> tuple[npt.NDArray[Any], list[Any]]:
    if not values.readable.any():
        return np.zeros(len(values), np.int64), [None]
    coded = _spans(values).dictionary_encode()
    found = [text.decode("utf-8", "surrogateescape") for text in coded.dictionary.to_pylist()]
    codes = coded.indices.fill_null(len(found)).to_numpy(zero_copy_only=False)
    return codes.astype(np.int64), [*found, None]


def _spelt(vector: SpeltTexts) -> Any:
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
    left, values = coded.dictionary.to_numpy(), list[list[Any]]()
    for _, found in reversed(parts):
        left, places = np.divmod(left, max(1, len(found)))
        values.insert(0, list(map(found.__getitem__, places.tolist())))
    texts = list(map(vector.spell, *values))
    vector.is_exact = all(text is None or is_exact(text) for text in texts)
    if not vector.is_exact:
        texts = [None if text is None else exact(text) for text in texts]
    return pa.array(texts, pa.string()).take(coded.indices)
