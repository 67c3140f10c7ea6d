"""Numbers with their nouns, and lists that are cut, for messages."""

from collections.abc import Sequence


def count(number: int, noun: str, plural: str = "") -> str:
    """3 findings."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def some(texts: Sequence[str], most: int) -> str:
    """`a, b, c and 2 more`: the first `most` of them."""
    more = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {more} more" if more > 0 else "")
