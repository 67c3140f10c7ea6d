"""Columns of values: the interpreted fields of a batch, for filters and for output.

Every member of a JSON row is one Vector, and filters see the same names, types and values as JSON. One batch
holds tens of thousands of values, so code that runs once per value must be a comprehension or C.
"""

import json
from collections.abc import Sequence
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from kubectl_gadget.gadgets.schema import UNKNOWN

Array = npt.NDArray[Any]
"""Elements of one of numpy's types, which differs between fields."""
Integers = npt.NDArray[np.integer[Any]]
Mask = npt.NDArray[np.bool_]
Type = Literal["int", "text", "texts", "bool", "buckets", "object"]
Pieces = tuple[str, tuple[list[Any], ...]]
"""A %-template for one row's JSON value, and one list for each of its placeholders."""
Few = tuple[Integers, Sequence[str]]
"""Few different JSON values of many rows: a row's value is `words[codes[row]]`."""


_NEAR = 1 << 16
"""Up to this difference between the lowest and the highest number, a table is faster than sorting."""
FEW = 4
"""A column has few values if each occurs in at least this many rows, on average."""
LEAST_ROWS = 64
"""With fewer rows, looking for equal values costs more than writing them."""


class Vector:
    """One value per row. `valid()` is None if every row has one, else a mask that is False where the value is null."""

    type: Type

    def __len__(self) -> int:
        raise NotImplementedError

    def valid(self) -> Mask | None:
        """The mask of values that are not null; None: all."""
        return None

    def absent(self) -> bool:
        """True if it is certain that every value is null or false, so that an optional member can skip the rows."""
        return False

    def values(self) -> list[Any]:
        """Python values, None for null."""
        raise NotImplementedError

    def json(self) -> Pieces:
        """The values as JSON, ready for one %-format per row."""
        raise NotImplementedError

    def few(self) -> Few | None:
        """The values as JSON, if they are known to be few, or found to be faster than all are written; else None."""
        return None


class Numbers(Vector):
    """Whole numbers."""

    type: Type = "int"

    def __init__(self, array: Integers) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def values(self) -> list[Any]:
        values: list[Any] = self.array.tolist()
        return values

    def json(self) -> Pieces:
        return "%d", (self.array.tolist(),)

    def few(self) -> Few | None:
        if len(self) < LEAST_ROWS or not are_near(self.array):
            return None
        numbers, codes = different(self.array)
        return None if len(numbers) * FEW > len(codes) else (codes, list(map(str, numbers.tolist())))


class SomeNumbers(Numbers):
    """Numbers that are null where `known` is false."""

    def __init__(self, array: Integers, known: Mask) -> None:
        super().__init__(array)
        self._known = None if known.all() else known

    def valid(self) -> Mask | None:
        return self._known

    def values(self) -> list[Any]:
        if self._known is None:
            return super().values()
        found = self.array.astype(object)
        found[~self._known] = None
        values: list[Any] = found.tolist()
        return values

    def json(self) -> Pieces:
        if self._known is None:
            return super().json()
        return "%s", (["null" if number is None else str(number) for number in self.values()],)

    def few(self) -> Few | None:
        if self._known is None:
            return super().few()
        if not self._known.any():
            return np.zeros(len(self), np.intp), ["null"]
        found = Numbers(self.array[self._known]).few()
        if found is None:
            return None
        codes = np.full(len(self), len(found[1]))
        codes[self._known] = found[0]
        return codes, [*found[1], "null"]


class KnownNumbers(SomeNumbers):
    """Unsigned 64-bit numbers; the highest one means null. For filters the highest is an error, like every number that
    does not fit CEL's signed 64 bits."""

    def __init__(self, array: Integers) -> None:
        super().__init__(array, array != UNKNOWN)


class Booleans(Vector):
    """True or false."""

    type: Type = "bool"

    def __init__(self, array: Mask) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def absent(self) -> bool:
        return not self.array.any()

    def values(self) -> list[Any]:
        values: list[Any] = self.array.tolist()
        return values

    def json(self) -> Pieces:
        return "%s", (["true" if value else "false" for value in self.array.tolist()],)

    def few(self) -> Few:
        return self.array.astype(np.intp), ("false", "true")


class Objects(Vector):
    """Objects of JSON: mappings, lists of them, or None. `texts` are the same as JSON, if they are made already."""

    type: Type = "object"

    def __init__(self, objects: list[object], texts: list[str] | None = None) -> None:
        self._objects = objects
        self._texts = texts

    def __len__(self) -> int:
        return len(self._objects)

    def values(self) -> list[Any]:
        return self._objects

    def json(self) -> Pieces:
        texts = self._texts or ["null" if found is None else _json_object(found) for found in self._objects]
        return "%s", (texts,)


def different(numbers: Array) -> tuple[Array, Integers]:
    """The different numbers in order, and the place of each row's number among them: np.unique, without its sorting if
    the numbers are near each other."""
    if not are_near(numbers):
        return np.unique(numbers, return_inverse=True)
    low, high = int(numbers.min()), int(numbers.max())
    if low == high:
        return numbers[:1], np.zeros(len(numbers), np.intp)
    wide = numbers if numbers.dtype.kind == "u" else numbers.astype(np.int64)
    places = (wide - wide.dtype.type(low)).astype(np.intp)
    present = np.zeros(high - low + 1, np.intp)
    present[places] = 1
    found = np.flatnonzero(present) if low < 0 else np.flatnonzero(present).astype(numbers.dtype)
    return (found + numbers.dtype.type(low)).astype(numbers.dtype), (np.cumsum(present) - 1)[places]


def are_near(numbers: Array) -> bool:
    """True if a table of all numbers between the lowest and the highest is small."""
    return len(numbers) > 0 and int(numbers.max()) - int(numbers.min()) < min(_NEAR, 16 * len(numbers))


def pick(words: Sequence[Any], codes: Integers) -> list[Any]:
    """`[words[code] for code in codes]`, in C."""
    table = np.empty(len(words), object)
    table[:] = words
    picked: list[Any] = table[codes].tolist()
    return picked


def all_printable(texts: Sequence[str | None]) -> bool:
    """True if no text needs escaping anywhere. Lone surrogates are not printable."""
    return None not in texts and "".join(texts).isprintable()  # type: ignore[arg-type]


def exact(text: str) -> str:
    """Valid Unicode: U+FFFD replaces each byte that was not UTF-8. The member NAME_bytes has the original bytes."""
    if text.isprintable():
        return text
    return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)


def is_exact(text: str) -> bool:
    """True if it is valid Unicode."""
    return text.isprintable() or exact(text) == text


def json_texts(texts: Sequence[str | None], printable: bool | None = None) -> list[str]:
    """Texts as JSON strings. Unprintable characters are escaped with \\u to protect terminals."""
    if all_printable(texts) if printable is None else printable:
        return list(map(encode_basestring, texts))  # type: ignore[arg-type]
    return ["null" if text is None else _json_text(text) for text in texts]


def _json_object(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text if text.isprintable() else json.dumps(value, separators=(",", ":"))


def _json_text(text: str) -> str:
    encoded: str = encode_basestring(text) if text.isprintable() else encode_basestring_ascii(exact(text))
    return encoded


def utf8(text: str) -> str:
    """Return a text that an expression of RE2 can search: bytes that are not UTF-8 stand as \\udcXX in it."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
