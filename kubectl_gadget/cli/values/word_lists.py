"""Reads words, choices and lists of words."""

from collections.abc import Callable, Sequence

from kubectl_gadget.output.registry import Formats, UnknownFormatError
from kubectl_gadget.similar_names import meant

COLORS = ("auto", "always", "never")
PULL_POLICIES = ("Always", "IfNotPresent", "Never")


def some_text(text: str) -> str:
    """Any text that is not blank."""
    if not text.strip():
        raise ValueError("is empty")
    return text


def one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text in choices:
            return text
        raise ValueError(f"must be one of {', '.join(choices)}{meant(text, choices)}")

    return read


def format_of(formats: Formats) -> Callable[[str], str]:
    def read(text: str) -> str:
        try:
            return formats.check(text)
        except UnknownFormatError:
            return one_of(*formats.spelled)(text)

    return read


def commas(texts: Sequence[str]) -> tuple[str, ...]:
    """The parts of one or more comma-separated lists, in order, each once."""
    parts = [part.strip() for text in texts for part in text.split(",")]
    if not all(parts):
        raise ValueError("the list has an empty name")
    return tuple(dict.fromkeys(parts))


def each(read: Callable[[str], str], texts: Sequence[str]) -> tuple[str, ...]:
    """The results of `read` for each text, without duplicates. Raises ValueError, which names the invalid text."""
    result = []
    for text in texts:
        try:
            result.append(read(text))
        except ValueError as error:
            raise ValueError(f"{text!r} {error}") from None
    return tuple(dict.fromkeys(result))
