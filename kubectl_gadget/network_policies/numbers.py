"""ObjectNumbers for sets of policies and for peers, which stay the same while a run goes on.

The trap: a number that came to mean something else would be wrong in the kernel until the last entry is replaced.
"""

from collections.abc import Hashable

NOBODY, ANYONE = 0, (1 << 32) - 1
"""A peer that no rule is about; what rules allow to everybody."""


class ObjectNumbers:
    """From 1 on; 0 is for None."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}

    def of(self, key: Hashable) -> int:
        """Always the same one for the same key."""
        return 0 if key is None else self._numbers.setdefault(key, len(self._numbers) + 1)
