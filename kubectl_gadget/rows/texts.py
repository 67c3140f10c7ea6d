"""Columns of texts: read in bulk, and tested byte by byte where that is faster than making Python strings.

Texts are Python strings in which a byte that is not UTF-8 is a lone surrogate (PEP 383), so that nothing is lost before
output. The trap: a test must give the same result as for the value in JSON, which has U+FFFD for such a byte.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from kubectl_gadget.rows.vectors import (
    FEW,
    LEAST_ROWS,
    Array,
    Few,
    Integers,
    Mask,
    Pieces,
    Type,
    Vector,
    all_printable,
    exact,
    is_exact,
    json_texts,
    pick,
)

PLAIN = '"%s"'
"""The template of texts that JSON writes as they are."""
Key = TypeVar("Key")
Value = TypeVar("Value")


class Texts(Vector):
    """Texts in general; subclasses have faster methods. Tests compare bytes, and are False where the text is null."""

    type: Type = "text"

    def __init__(self, read: Callable[[], list[str | None]] | None, count: int) -> None:
        """Without `read`, a subclass has `_make`: a bound method here would be a cycle, which keeps the bytes alive."""
        self._read = read
        self._count = count
        self._texts: list[str | None] | None = None
        self._printable: bool | None = None
        self._plain = False
        self.is_exact = False
        """set by code that has found that every text is valid UTF-8"""

    def __len__(self) -> int:
        return self._count

    def valid(self) -> Mask | None:
        texts = self.texts()
        return np.fromiter((text is not None for text in texts), np.bool_, len(texts)) if None in texts else None

    def texts(self) -> list[str | None]:
        """The texts; bytes that are not UTF-8 are lone surrogates."""
        if self._texts is None:
            self._texts = self._make()
        return self._texts

    def _make(self) -> list[str | None]:
        assert self._read is not None
        return self._read()

    def printable(self) -> bool:
        """True if every row has a text, and none of them needs escaping anywhere."""
        if self._printable is None:
            texts = self.texts()
            joined = "\0" if None in texts else "".join(texts)  # type: ignore[arg-type]
            self._printable = joined.isprintable()
            self._plain = self._printable and '"' not in joined and "\\" not in joined
        return self._printable

    def values(self) -> list[Any]:
        texts = self.texts()
        return list(texts) if self.printable() else [None if text is None else exact(text) for text in texts]

    def json(self) -> Pieces:
        if self.printable() and self._plain:
            return PLAIN, (self.texts(),)
        return "%s", (json_texts(self.texts(), self.printable()),)

    def test(self, check: Callable[[str], bool]) -> Mask:
        """True for rows where `check` is true for the value in JSON."""
        values = self.values()
        return np.fromiter((value is not None and check(value) for value in values), np.bool_, len(values))

    def equals(self, literal: str) -> Mask:
        """True for rows whose text is `literal`."""
        return self.test(literal.__eq__)

    def starts_with(self, literal: str) -> Mask:
        """True for rows whose text begins with `literal`."""
        return self.test(lambda text: text.startswith(literal))

    def ends_with(self, literal: str) -> Mask:
        """True for rows whose text ends with `literal`."""
        return self.test(lambda text: text.endswith(literal))


class CodedMarks(Texts):
    """Texts of many rows with few different values, some or most of them null: `words[codes[row]]`."""

    def __init__(self, codes: Integers, words: Sequence[str | None]) -> None:
        super().__init__(None, len(codes))
        self.codes = codes
        self.words = words

    def absent(self) -> bool:
        return not any(self.words)

    def few(self) -> Few:
        return self.codes, json_texts(self.words)

    def valid(self) -> Mask | None:
        if None not in self.words:
            return None
        known = np.fromiter((word is not None for word in self.words), np.bool_, len(self.words))
        mask: Mask = known[self.codes]
        return mask

    def test(self, check: Callable[[str], bool]) -> Mask:
        answers = [word is not None and check(exact(word)) for word in self.words]
        mask: Mask = np.array(answers, np.bool_)[self.codes]
        return mask

    def _make(self) -> list[str | None]:
        return pick(self.words, self.codes)


class CodedTexts(CodedMarks):
    """Like CodedMarks, and no word is null."""

    words: Sequence[str]

    def absent(self) -> bool:
        return False

    def json(self) -> Pieces:
        return "%s", (pick(json_texts(self.words), self.codes),)

    def printable(self) -> bool:
        if self._printable is None:
            self._printable = all_printable(self.words)
        return self._printable


class FixedTexts(Texts):
    """Texts in arrays of chars; each ends at the first NUL. Where `known` is false, the text is null."""

    def __init__(self, array: npt.NDArray[np.bytes_], known: Mask | None = None) -> None:
        super().__init__(None, len(array))
        self.array = array
        self._known = known

    def valid(self) -> Mask | None:
        return self._known

    def few(self) -> Few | None:
        if len(self) < LEAST_ROWS:
            return None
        found = self.array.tolist()
        different = dict.fromkeys(found)
        if len(different) * FEW > len(found):
            return None
        texts = list(map(until_nul, different))
        self.is_exact = is_exact("".join(texts))
        places = dict(zip(different, range(len(texts)), strict=True))
        codes = np.fromiter(map(places.__getitem__, found), np.intp, len(found))
        if self._known is None:
            return codes, json_texts(texts)
        return np.where(self._known, codes, len(texts)), [*json_texts(texts), "null"]

    def equals(self, literal: str) -> Mask:
        wanted = literal.encode("utf-8", "surrogateescape")
        if "\ufffd" in literal or "\0" in literal or self._has_tail():
            return super().equals(literal)
        same: Mask = self.array == np.bytes_(wanted)
        return same if self._known is None else same & self._known

    def _make(self) -> list[str | None]:
        texts: list[str | None] = list(map(Memo(until_nul).__getitem__, self.array.tolist()))
        if self._known is not None:
            texts = [text if known else None for text, known in zip(texts, self._known.tolist(), strict=True)]
        return texts

    def _has_tail(self) -> bool:
        """True if any text has bytes after its NUL: numpy compares whole arrays and ignores only trailing NULs."""
        block = self.array.view(np.uint8).reshape(len(self.array), self.array.itemsize)  # -1 fails if there are no rows
        empty = block == 0
        return bool((empty[:, :-1] & ~empty[:, 1:]).any())


class SpanTexts(Texts):
    """Texts of any length in a shared buffer."""

    def __init__(
        self,
        bytes: npt.NDArray[np.uint8],
        starts: Integers,
        lengths: Integers,
        readable: Mask,
        latin1: Callable[[], str],
    ) -> None:
        super().__init__(None, len(starts))
        self.bytes = bytes
        self.starts = starts
        self.lengths = lengths
        self.readable = readable
        self.coded: tuple[Array, list[Any]] | None = None
        """the place of each row's text in a list, set by code that has computed it"""
        self._latin1 = latin1

    def valid(self) -> Mask | None:
        return None if self.readable.all() else self.readable

    def few(self) -> Few | None:
        if self.readable.any():
            return None
        self.is_exact = True
        return np.zeros(len(self), np.intp), ["null"]

    def equals(self, literal: str) -> Mask:
        if "\ufffd" in literal:
            return super().equals(literal)
        wanted = literal.encode("utf-8", "surrogateescape")
        return self._at(self.lengths == len(wanted), self.starts, wanted)

    def starts_with(self, literal: str) -> Mask:
        if "\ufffd" in literal:
            return super().starts_with(literal)
        wanted = literal.encode("utf-8", "surrogateescape")
        return self._at(self.lengths >= len(wanted), self.starts, wanted)

    def ends_with(self, literal: str) -> Mask:
        if "\ufffd" in literal:
            return super().ends_with(literal)
        wanted = literal.encode("utf-8", "surrogateescape")
        return self._at(self.lengths >= len(wanted), self.starts + self.lengths - len(wanted), wanted)

    def _at(self, candidates: Mask, starts: Integers, wanted: bytes) -> Mask:
        """True for rows with `wanted` at `starts`. Compares each byte only in rows whose earlier bytes matched."""
        result = np.zeros(len(starts), np.bool_)
        rows = np.flatnonzero(candidates & self.readable)
        places = starts[rows]
        for offset, byte in enumerate(wanted):
            if len(rows) == 0:
                return result
            same = self.bytes[places + offset] == byte
            if not same.all():
                rows, places = rows[same], places[same]
        result[rows] = True
        return result

    def _make(self) -> list[str | None]:
        if not self.readable.any():
            return [None] * len(self)
        whole = self._latin1()
        ends = (self.starts + np.where(self.readable, self.lengths, 0)).tolist()
        texts: list[str] = [whole[start:end] for start, end in zip(self.starts.tolist(), ends, strict=True)]
        if not "".join(texts).isascii():
            texts = [text if text.isascii() else _utf8(text.encode("latin-1")) for text in texts]
        if self.readable.all():
            return list[str | None](texts)
        return [text if ok else None for text, ok in zip(texts, self.readable.tolist(), strict=True)]


class SpeltTexts(Texts):
    """Texts that depend only on `inputs` of the same row, so code that has many rows may call `spell` once for each
    different one. `spell` takes one value for each input: a text or null of a SpanTexts, or an array's value."""

    def __init__(
        self, read: Callable[[], list[str | None]], inputs: "Inputs", spell: Callable[..., str | None]
    ) -> None:
        super().__init__(read, len(inputs[0]))
        self.inputs = inputs
        self.spell = spell

    def few(self) -> Few | None:
        same = list[Any]()
        for column in self.inputs:
            if isinstance(column, SpanTexts):
                if column.readable.any():
                    return None
                same.append(None)
            elif not len(column) or (column != column[0]).any():
                return None
            else:
                same.append(column[0].item())
        text = self.spell(*same)
        self.is_exact = is_exact(text or "")
        return np.zeros(len(self), np.intp), json_texts([text])


Inputs = Sequence[SpanTexts | Array]


class Nulls(Texts):
    """A member that is null in every row."""

    def __init__(self, count: int) -> None:
        super().__init__(lambda: [None] * count, count)

    def absent(self) -> bool:
        return True


class TextLists(Vector):
    """A list of texts per row, such as a program's arguments, with lone surrogates for bytes that are not UTF-8."""

    type: Type = "texts"

    def __init__(self, lists: list[list[str] | None]) -> None:
        self.lists = lists

    def __len__(self) -> int:
        return len(self.lists)

    def valid(self) -> Mask | None:
        if None not in self.lists:
            return None
        return np.fromiter((item is not None for item in self.lists), np.bool_, len(self.lists))

    def printable(self) -> bool:
        """True if no element of any list needs escaping."""
        return all("".join(items).isprintable() for items in self.lists if items is not None)

    def values(self) -> list[Any]:
        return [None if items is None else [exact(item) for item in items] for items in self.lists]

    def json(self) -> Pieces:
        return "%s", (["null" if items is None else "[" + ",".join(json_texts(items)) + "]" for items in self.lists],)


def _utf8(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def until_nul(data: bytes) -> str:
    """The text in an array of chars; bytes that are not UTF-8 are lone surrogates."""
    return _utf8(data.partition(b"\0")[0])


class Memo(dict[Key, Value]):
    """Caches a function's result for each value, for columns with few different values in many rows."""

    def __init__(self, make: Callable[[Key], Value]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: Key) -> Value:
        value = self[key] = self._make(key)
        return value
