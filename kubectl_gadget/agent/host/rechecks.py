"""When to check things again whose changes no event reports, such as what a process has mapped: often while they are
new, rarely when they are old."""

import time
from collections.abc import Hashable, Set
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

_INTERVALS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between two checks of one thing; the last value is repeated."""


class Rechecks(Generic[Key]):
    """The times of the next checks."""

    def __init__(self) -> None:
        self._next: dict[Key, tuple[int, float]] = {}
        """number of checks, and when the next one is due"""

    def due(self, present: Set[Key]) -> list[Key]:
        """Returns the things to check now, in any order. Forgets what is not present."""
        now = time.monotonic()
        for gone in self._next.keys() - present:
            del self._next[gone]
        found = []
        for key in present:
            checks, due = self._next.get(key, (0, 0.0))
            if due <= now:
                found.append(key)
                self._next[key] = checks + 1, now + _INTERVALS[min(checks, len(_INTERVALS) - 1)]
        return found
