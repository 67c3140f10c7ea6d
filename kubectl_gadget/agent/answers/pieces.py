"""Pieces of records of snapshots, sums and recordings, that are taken now and then, not by the event.

The trap: what was taken is shipped only when the containers in it have names, so it is kept here, and the next interval
may be taken before.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from kubectl_gadget.wire import LAST, PART, REST


class Piece(NamedTuple):
    """Whole records, as a ring buffer would hold them."""

    records: bytes
    flags: int
    interval: int
    complete_until: int


class Pieces:
    """Those of one source that were not shipped yet."""

    def __init__(self) -> None:
        self._interval = 0
        self._unsent: deque[Piece] = deque()

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._unsent)

    def add(self, records: Iterable[bytes], is_rest: bool = False) -> None:
        """The next interval: all of its records, in parts. `is_rest`: the end of the session cut it short."""
        parts = [part for part in records if part]
        complete_until = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        # An answer without a record is an answer, too.
        for number, part in enumerate(parts or [b""], 1):
            flags = PART | (LAST if number >= len(parts) else 0) | (REST if is_rest else 0)
            self._unsent.append(Piece(part, flags, self._interval, complete_until))
        self._interval += 1

    def take(self) -> Iterator[Piece]:
        """Those that were not taken yet, in order."""
        while self._unsent:
            yield self._unsent.popleft()
