"""Makes hostile text safe: text from the kernel for terminals, and any text for each format.

All begin with `printable`: no control characters, no changes of direction.
"""

import csv
import html
import io
import json
import re
import string
from collections.abc import Iterable, Iterator, Sequence

# Makes text from the kernel safe for people and terminals.


_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escape(text: str) -> str:
    """One text, safe to print."""
    return text if text.isprintable() else "".join(map(_escape_character, text))


def escape_all(texts: Sequence[str]) -> Sequence[str]:
    """Many texts, safe to print. All are checked in one go, since most columns have nothing to escape."""
    return texts if "".join(texts).isprintable() else list(map(escape, texts))


def json_line(value: object, separators: tuple[str, str] | None = None) -> str:
    """The value as JSON on one line, exact and safe to print: unprintable characters become `\\u202e`."""
    text = json.dumps(value, ensure_ascii=False, separators=separators)
    return text if text.isprintable() else json.dumps(value, separators=separators)


def csv_line(values: Iterable[object]) -> str:
    """A row of CSV with its newline."""
    line = io.StringIO()
    # Before Python 3.13 the library quotes only those ends of lines that are its own.
    csv.writer(line, lineterminator="\r\n").writerow(values)
    return line.getvalue()[:-2] + "\n"


def is_printable(value: object) -> bool:
    """True if all texts in lists, objects and keys of objects can be printed as they are."""
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


# Makes hostile text safe for each format. All begin with `printable`: no control characters, no changes of
# direction.


_ENTITIES = {
    ord(character): f"&#{ord(character)};" for character in string.punctuation if character not in "/-,;=.()+%\"'"
}
_NEEDS_ENTITIES = ("|", "`", "##", "::")
"""Characters that a code span in a table cannot hold, or that a runner must not see"""


def printable(text: str, most: int = 0) -> str:
    """On one line, and at most `most` characters if that is not 0."""
    text = escape(text)
    return text if not most or len(text) <= most else f"{text[: most - 1]}…"


def for_log(text: str) -> str:
    """For a line of a log: no commands to runners, which begin with ##, or with :: at the beginning of a line."""
    text = re.sub("#(?=#)", r"#\\", printable(text))  # each pair, also where pairs overlap
    return text.replace("::", ":\\:", 1) if text.lstrip().startswith("::") else text


def for_markdown(text: str, most: int = 0) -> str:
    """Return it as plain text of a paragraph or a cell."""
    return printable(text, most).translate(_ENTITIES).replace("www.", "www&#46;")


def markdown_code(text: str, most: int = 0) -> str:
    """Return it as code, also for a cell of a table."""
    text = printable(text, most)
    if not text.strip():
        return ""
    if any(found in text for found in _NEEDS_ENTITIES):
        return f"<code>{for_markdown(text)}</code>"
    return f"`{text}`"


def markdown_table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """The lines of a table. Its cells are Markdown already."""
    titles = list(head)
    yield f"| {' | '.join(titles)} |"
    yield f"|{' --- |' * len(titles)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def for_html(text: str, most: int = 0) -> str:
    """For text and for values of attributes, also inside of Markdown."""
    return html.escape(printable(text, most)).replace("##", "#&#35;").replace("::", ":&#58;")


def for_xml(text: str, most: int = 0) -> str:
    """Without the characters that XML cannot have; the XML writer escapes the rest."""
    return printable(text, most)
