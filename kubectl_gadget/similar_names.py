"""Suggests the known names that are nearest to one that is not known, for messages.

The trap: difflib takes 3 ms to import, so it is imported only when there is something to say.
"""

from collections.abc import Iterable

_SHORT = 400
"""A list of all names of fewer characters than this fits into a message."""


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6, most: int = 2) -> str | None:
    """The names nearest to `name`, whatever their case; None when none is near."""
    from difflib import get_close_matches

    lower = {one.lower(): one for one in known}
    if name.lower() in lower:
        return lower[name.lower()]
    return " or ".join(lower[one] for one in get_close_matches(name.lower(), lower, most, cutoff)) or None


def meant(name: str, known: Iterable[str], cutoff: float = 0.6, most: int = 2) -> str:
    """`; did you mean …?` with the nearest names; empty when none is near."""
    near = nearest(name, known, cutoff, most)
    return f"; did you mean {near}?" if near else ""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean …?` with the nearest names, or the list of all when it is short; else empty."""
    names = list(known)
    if near := meant(name, names, 0.7):
        return near
    return f"; it is one of {', '.join(names)}" if names and sum(map(len, names)) < _SHORT else ""


def suggested(name: str, known: Iterable[str], cutoff: float = 0.5, most: int = 3, only_near: bool = False) -> str:
    """`pod or pid?` with the names nearest to `name`. When none is near: `one of …` with all names; empty with
    `only_near`."""
    names = sorted(known)
    if near := nearest(name, names, cutoff, most):
        return f"{near}?"
    return "" if only_near else f"one of {', '.join(names)}"
