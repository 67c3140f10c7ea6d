"""Counts a fact while it is collected: in which pods, how often, and the first row."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Sighting:
    """One fact's counts, which change with each row. `plus` merges those of the same fact in other pods."""

    first: str
    """RFC 3339, always with as many digits, so that texts are in order of time"""
    row: Mapping[str, Any]
    pods: frozenset[str]
    images: frozenset[str] = frozenset()
    count: int = field(default=1)

    def again(self, first: str) -> None:
        """Counts another row of the same pod; `first`: its time. Rows come nearly in order of time."""
        self.count += 1
        self.first = min(self.first, first)

    def plus(self, other: "Sighting") -> "Sighting":
        """Merges two sightings of one fact."""
        first = min(self, other, key=lambda seen: seen.first)
        return Sighting(
            first.first, first.row, self.pods | other.pods, self.images | other.images, self.count + other.count
        )
