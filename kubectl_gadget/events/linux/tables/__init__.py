"""Tables of Linux's names, in text files beside this one: `#` begins a comment."""

from pathlib import Path


def lines(name: str) -> list[list[str]]:
    """The words of each line of a table."""
    text = (Path(__file__).parent / f"{name}.txt").read_text("utf-8")
    return [line.split() for line in text.splitlines() if not line.startswith("#")]


def words(name: str) -> list[str]:
    """All words of a table."""
    return [word for line in lines(name) for word in line]
