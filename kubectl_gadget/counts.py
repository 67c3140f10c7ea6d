"""Numbers with their nouns, for messages."""


def count(number: int, noun: str, plural: str = "") -> str:
    """3 findings."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
