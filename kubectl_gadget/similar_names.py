"""Suggests the known names that are nearest to one that is not known, for messages.

The trap: difflib takes 3 ms to import, so it is imported only when there is something to say.
"""

from collections.abc import Iterable

_SHORT = 400
"""A list of all names of fewer characters than this fits into a message."""


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The one or two names nearest to `name`, whatever their case; None when none is near."""
    from difflib import get_close_matches

    lower = {one.lower(): one for one in known}
    return " or ".join(lower[one] for one in get_close_matches(name.lower(), lower, 2, cutoff)) or None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean …?` with the nearest names, or the list of all when it is short; else empty."""
    names = list(known)
    if near := nearest(name, names, 0.7):
        return f"; did you mean {near}?"
    return f"; it is one of {', '.join(names)}" if names and sum(map(len, names)) < _SHORT else ""


def suggested(name: str, known: Iterable[str]) -> str:
    """`pod or pid?` with up to three names nearest to `name`, or `one of …` with all."""
    from difflib import get_close_matches

    names = sorted(known)
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    return f"{' or '.join(near)}?" if near else f"one of {', '.join(names)}"
