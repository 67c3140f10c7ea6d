"""When to look again at things that no event reports, such as what a process has mapped: soon and often while they are
new, rarely when they are old."""

import time
from collections.abc import Hashable, Set
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

_AGAIN = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between two looks at one thing; the last value is repeated."""


class Rechecks(Generic[Key]):
    """The times of the next looks."""

    def __init__(self) -> None:
        self._next: dict[Key, tuple[int, float]] = {}
        """number of looks, and when the next one is due"""

    def due(self, present: Set[Key]) -> list[Key]:
        """Returns what is to be looked at now. Forgets what is not present."""
        now = time.monotonic()
        for gone in self._next.keys() - present:
            del self._next[gone]
        found = []
        for key in present:
            looks, due = self._next.get(key, (0, 0.0))
            if due <= now:
                found.append(key)
                self._next[key] = looks + 1, now + _AGAIN[min(looks, len(_AGAIN) - 1)]
        return found
