"""Makes text from the kernel safe for people and terminals.

A file name may contain terminal escapes, newlines or bidirectional overrides. Unprintable characters are shown as
escapes: `\\n`, `\\x1b`, `\\u202e`, and `\\xff` for a byte that is not UTF-8. The trap: a real backslash is not escaped,
since systemd puts `\\x2d` into the names of real files; for exact text there is JSON.
"""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escape(text: str) -> str:
    """One text, safe to print."""
    return text if text.isprintable() else "".join(map(_escape_character, text))


def escape_all(texts: Sequence[str]) -> Sequence[str]:
    """Many texts, safe to print. All are checked in one go, since most columns have nothing to escape."""
    return texts if "".join(texts).isprintable() else list(map(escape, texts))


def json_line(value: Any, separators: tuple[str, str] | None = None) -> str:
    """The value as JSON on one line, exact and safe to print: unprintable characters become `\\u202e`."""
    text = json.dumps(value, ensure_ascii=False, separators=separators)
    return text if text.isprintable() else json.dumps(value, separators=separators)


def csv_line(values: Iterable[Any]) -> str:
    """A row of CSV with its newline."""
    line = io.StringIO()
    # Before Python 3.13 the library quotes only those ends of lines that are its own.
    csv.writer(line, lineterminator="\r\n").writerow(values)
    return line.getvalue()[:-2] + "\n"


def is_printable(value: Any) -> bool:
    """Whether all texts in lists, objects and keys of objects can be printed as they are."""
    if isinstance(value, str):
        return value.isprintable()
    if isinstance(value, dict):
        return all(map(is_printable, value)) and all(map(is_printable, value.values()))
    return not isinstance(value, list) or all(map(is_printable, value))


def _escape_character(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
