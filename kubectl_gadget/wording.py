"""Words for messages: numbers with their nouns, ages, lists that are cut, and names near to one that is not known."""

from collections.abc import Iterable, Sequence

# Numbers with their nouns, and lists that are cut, for messages.


def count(number: int, noun: str, plural: str = "") -> str:
    """3 findings."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def some(texts: Sequence[str], most: int) -> str:
    """`a, b, c and 2 more`: the first `most` of them."""
    more = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {more} more" if more > 0 else "")


def age(seconds: float) -> str:
    """5s, 3m20s, 47h5m, 12d3h: as kubectl writes ages."""
    minutes, left = divmod(int(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24}d{hours % 24}h"
    return f"{hours}h{minutes}m" if hours else f"{minutes}m{left}s" if minutes else f"{left}s"


# Suggests the known names that are nearest to one that is not known, for messages.


_SHORT = 400
"""A list of all names of fewer characters than this fits into a message."""

_FEW = 5
"""of the names in a longer list, which are shown"""


def close_matches(name: str, known: Iterable[str], most: int, cutoff: float) -> list[str]:
    """Returns what difflib.get_close_matches() returns, sooner when `known` is long."""
    from difflib import SequenceMatcher

    shortest, longest = cutoff / (2 - cutoff) * len(name), (2 - cutoff) / cutoff * len(name)
    counts, others = [(letter, name.count(letter)) for letter in set(name)], str.maketrans("", "", name)
    candidates: list[tuple[float, str]] = []
    for one in known:
        if shortest <= len(one) <= longest:
            needed = cutoff * (len(one) + len(name)) / 2
            # Letters that both have: first as often as `one` has them, which is quick and rejects most names.
            if len(one) - len(one.translate(others)) >= needed:
                shared = sum([min(one.count(letter), count) for letter, count in counts])
                if shared >= needed:
                    candidates.append((2 * shared / (len(one) + len(name)), one))
    matcher, found = SequenceMatcher(b=name), list[tuple[float, str]]()
    for possible, one in sorted(candidates, reverse=True):
        if len(found) == most and possible < found[-1][0]:
            break
        matcher.set_seq1(one)
        if (ratio := matcher.ratio()) >= cutoff:
            found = sorted([*found, (ratio, one)], reverse=True)[:most]
    return [one for _, one in found]


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6, most: int = 2) -> str | None:
    """The names nearest to `name`, whatever their case; None when none is near."""
    lower = {one.lower(): one for one in known}
    if name.lower() in lower:
        return lower[name.lower()]
    return " or ".join(lower[one] for one in close_matches(name.lower(), lower, most, cutoff)) or None


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
    """`pod or pid?` with the names nearest to `name`. When none is near: `one of …` with all names, or with a few when
    there are many; empty with `only_near`."""
    names = sorted(known)
    if near := nearest(name, names, cutoff, most):
        return f"{near}?"
    if only_near:
        return ""
    if sum(map(len, names)) < _SHORT:
        return f"one of {', '.join(names)}"
    few = ", ".join(close_matches(name, names, _FEW, 0.01) or names[:_FEW])
    return f"{few} or another one of {len(names)} names, which each gadget's --help lists"
