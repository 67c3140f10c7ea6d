"""Numbers for sets of policies and for peers, which stay the same during a run.

The trap: if a number changed its meaning, the kernel would make wrong decisions until the last entry is replaced.
"""

from collections.abc import Hashable

UNMATCHED, ANYONE = 0, (1 << 32) - 1
"""UNMATCHED: a peer that no rule matches. ANYONE: stands for all peers in rules that allow everyone."""


class ObjectNumbers:
    """Numbers keys from 1; 0 stands for None."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}

    def of(self, key: Hashable) -> int:
        """The number of a key, always the same."""
        return 0 if key is None else self._numbers.setdefault(key, len(self._numbers) + 1)
