"""Pieces of snapshots, sums and recordings, which are taken at intervals, not event by event.

The trap: a piece is sent only when the containers in it have names, so it waits here, perhaps until after the next
interval was taken.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from kubectl_gadget.wire.frames import LAST, PART, REST


class Piece(NamedTuple):
    """Whole records, laid out as in a ring buffer."""

    records: bytes
    flags: int
    interval: int
    complete_until: int


class Pieces:
    """The pieces of one source that were not sent yet."""

    def __init__(self) -> None:
        self._interval = 0
        self._unsent: deque[Piece] = deque()

    def __bool__(self) -> bool:
        """Whether any pieces were not sent yet."""
        return bool(self._unsent)

    def add(self, records: Iterable[bytes], is_rest: bool = False) -> None:
        """Adds all records of the next interval, in parts. `is_rest`: the end of the session cut the interval short."""
        parts = [part for part in records if part]
        complete_until = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        # An answer without records is sent, too.
        for number, part in enumerate(parts or [b""], 1):
            flags = PART | (LAST if number >= len(parts) else 0) | (REST if is_rest else 0)
            self._unsent.append(Piece(part, flags, self._interval, complete_until))
        self._interval += 1

    def take(self) -> Iterator[Piece]:
        """Yields and removes the pieces, in order."""
        while self._unsent:
            yield self._unsent.popleft()
