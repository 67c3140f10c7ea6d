"""Tables of Linux's names, in text files beside this one: `#` begins a comment. And names of numbers by them."""

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


class Namer:
    """The function from a number to its name: empty for `none`, and the number itself if it has no name."""

    def __init__(self, names: Mapping[int, str] | Sequence[str], none: int | None = None) -> None:
        self._names = names if isinstance(names, Mapping) else dict(enumerate(names))
        self._none = none

    def __call__(self, number: int) -> str:
        return "" if number == self._none else self._names.get(number) or str(number)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._names.values())


def flag_names(flags: int, names: Constants) -> str:
    """The names of the bits that are set; bits without a name come last, in hex. Empty for 0."""
    found = []
    for bits, name in names:
        if flags & bits == bits:
            found.append(name)
            flags &= ~bits
    return "|".join([*found, hex(flags)] if flags else found)
