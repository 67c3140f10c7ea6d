"""What an agent ships for a gadget whose answer is no stream: pieces of records, taken now and then, not by the event.

A subclass takes them: iterators.Snapshot once, totals.Totals at each interval, recorder.Recorder when something asks.
The trap: what is taken is shipped only when the containers in it have names, so it waits here, and the next interval
may be taken before.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from kubectl_gadget.wire import LAST, PART, REST


class Piece(NamedTuple):
    """Whole records, as a ring buffer would hold them."""

    records: bytes
    flags: int
    interval: int
    complete_until: int


class Answer:
    """`due` is when collect() has something to do, by the monotonic clock."""

    def __init__(self, first: float) -> None:
        self.due = first
        self.warnings: list[str] = []
        self._interval = 0
        self._ended = False
        self._waiting: deque[Piece] = deque()

    @property
    def waiting(self) -> bool:
        """Whether something was taken and not shipped yet."""
        return bool(self._waiting)

    def collect(self, now: float) -> None:
        """Takes what is due."""
        if now < self.due:
            return
        pieces = [piece for piece in self._take() if piece]
        complete_until = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        # An answer without a record is an answer, too.
        for number, piece in enumerate(pieces or [b""], 1):
            flags = PART | (LAST if number >= len(pieces) else 0) | (REST if self._ended else 0)
            self._waiting.append(Piece(piece, flags, self._interval, complete_until))
        self._interval += 1
        self.due = self._next(now)

    def ship(self) -> Iterator[Piece]:
        """What waits, in order."""
        while self._waiting:
            yield self._waiting.popleft()

    def removed(self, cgroups: Sequence[int]) -> None:
        """To be told of cgroups that are no more."""

    def show(self) -> None:
        """The user wants to see what there is."""

    def keep_up(self, now: float) -> None:
        """To be called often."""

    def ending(self) -> None:
        """To be called before the programs are detached."""

    def end(self) -> None:
        """To be called when the programs are detached: what is there can still be taken, once."""

    def close(self) -> None:
        """Frees what the answer itself has made."""

    def _take(self) -> Iterable[bytes]:
        raise NotImplementedError

    def _next(self, now: float) -> float:
        raise NotImplementedError
