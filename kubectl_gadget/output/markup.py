"""Makes hostile text safe for each format. All begin with `printable`: no control characters, no changes of direction.

The trap: the log of a CI job executes what it shows. A line that begins with `::`, and `##[` or `##vso[` anywhere in a
line, are commands to the runner, and so is what a Markdown or HTML viewer takes as markup.
"""

import html
import re
import string
from collections.abc import Iterable, Iterator, Sequence

from kubectl_gadget.output.escape import escape

_ENTITIES = {
    ord(character): f"&#{ord(character)};" for character in string.punctuation if character not in "/-,;=.()+%\"'"
}
_NEEDS_ENTITIES = ("|", "`", "##", "::")
"""What a code span cannot hold in a table, or must not show to a runner"""


def printable(text: str, most: int = 0) -> str:
    """On one line, and at most `most` characters if that is not 0."""
    text = escape(text)
    return text if not most or len(text) <= most else f"{text[: most - 1]}…"


def for_log(text: str) -> str:
    """For a line of a log: no commands to runners, which begin with ##, or with :: at the beginning of a line."""
    text = re.sub("#(?=#)", r"#\\", printable(text))  # each pair, also where pairs overlap
    return text.replace("::", ":\\:", 1) if text.lstrip().startswith("::") else text


def for_markdown(text: str, most: int = 0) -> str:
    """As plain text of a paragraph or a cell."""
    return printable(text, most).translate(_ENTITIES).replace("www.", "www&#46;")


def markdown_code(text: str, most: int = 0) -> str:
    """As code, also in a cell of a table."""
    text = printable(text, most)
    if not text.strip():
        return ""
    if any(found in text for found in _NEEDS_ENTITIES):
        return f"<code>{for_markdown(text)}</code>"
    return f"`{text}`"


def markdown_table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """The lines of a table. Its cells are Markdown already."""
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def for_html(text: str, most: int = 0) -> str:
    """For text and for values of attributes, also inside of Markdown."""
    return html.escape(printable(text, most)).replace("##", "#&#35;").replace("::", ":&#58;")


def for_xml(text: str, most: int = 0) -> str:
    """Without the characters that XML cannot have; the XML writer escapes the rest."""
    return printable(text, most)
