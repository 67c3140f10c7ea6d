"""Tables of Linux's names, in text files beside this one: `#` begins a comment."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

Constants = Sequence[tuple[int, str]]
"""Numbers and their names."""


def lines(name: str) -> list[list[str]]:
    """The words of each line of a table."""
    text = (Path(__file__).parent / f"{name}.txt").read_text("utf-8")
    return [line.split() for line in text.splitlines() if not line.startswith("#")]


def words(name: str) -> list[str]:
    return [word for line in lines(name) for word in line]


def constants(group: str) -> Constants:
    """The constants in a group of constants.txt; none if there is no such group."""
    return _groups().get(group, ())


@cache
def _groups() -> Mapping[str, Constants]:
    found: dict[str, list[tuple[int, str]]] = {}
    for number, name in lines("constants"):
        if number == "group":
            group = found[name] = []
        else:
            group.append((int(number, 0), name))
    return found
