"""A target's queue, and the thread that empties it.

A target that is slow, down or refuses must neither slow nor end the run, so the queue is bounded: what does not fit is
dropped and counted. What a target did not take for now is tried again, in order; what it refuses for good is dropped.
"""

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from kubectl_gadget.wording import count

MOST_BYTES = 32 << 20
"""of encoded rows that wait for one target"""
MOST_AT_ONCE = 4 << 20
"""Bytes that are sent together; an item alone may have more."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds between two attempts; each pause is twice as long as the one before."""
LONGEST_RETRY_AFTER = 300.0
CLOSE_SECONDS = 5.0
"""for what still waits at the end of the run"""
REPORT_SECONDS = 60.0
STEADY_SECONDS = 10.0
"""A target that fails sooner than this after it took rows again is said once to fail again and again."""
_FULL, _AT_END, _OTHER = "the queue was full", "the run had ended", "other reasons"
_LONGEST_CAUSE = 200
_MOST_CAUSES = 10
"""that are counted by their words; targets choose some of these"""


class Item(NamedTuple):
    """Some encoded rows."""

    data: Sequence[bytes]
    rows: int
    size: int
    since: float = 0.0
    """when it was offered, on the monotonic clock"""


class Refused(Exception):
    """The target will not take these items, however often it is asked."""


class TooLarge(Refused):
    """The target may take them in smaller parts."""


class NotNow(Exception):
    """The target may take the items later."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after
        """seconds until it is to be asked again, if it said so"""


class Transport(Protocol):
    """Takes items to one target. All calls but `abort` come from the thread of the delivery."""

    most_items: int
    """to be sent together, unless they have more than MOST_AT_ONCE bytes"""
    taken: int
    """how many items of the last call were sent, if it raised NotNow or OSError"""
    linger: float
    """seconds to wait for more items"""
    why: str
    """why rows of the last call were refused; empty: the target did not say"""

    def send(self, items: Sequence[Item]) -> int:
        """Send the items; return how many of their rows the target refused. Raises Refused, NotNow or OSError."""

    def end(self) -> None:
        """Close the connection after all of its data, within a second."""


@dataclass(frozen=True)
class Counts:
    """Counts of the rows that one target was given, by their fate."""

    delivered: int
    waiting: int
    lost: dict[str, int]
    """by cause"""
    problem: str
    """why the last attempt failed; empty: it did not"""
    waiting_bytes: int = 0
    lag: float = 0.0
    """how long the first of those that wait has waited, in seconds"""

    @property
    def total_lost(self) -> int:
        return sum(self.lost.values())


class Delivery:
    """One target. `offer` never waits."""

    def __init__(self, name: str, transport: Transport, most_bytes: int | None = None, noun: str = "row") -> None:
        self.name = name
        self._noun = noun
        self._transport = transport
        self._most_bytes = MOST_BYTES if most_bytes is None else most_bytes
        self._items: deque[Item] = deque()
        self._sending: list[Item] = []
        self._bytes = self._delivered = 0
        self._lost: Counter[str] = Counter()
        self._problem = ""
        self._changed = threading.Condition()
        self._deadline: float | None = None
        self._is_over = self._is_last = False
        self._warn: Callable[[str], object] = lambda text: None
        self._reported = 0
        self._next_report = 0.0
        self._is_failing = self._is_unsteady = self._had_no_room = False
        self._again_at = float("-inf")
        self._thread = threading.Thread(target=self._work, name=f"export {name}", daemon=True)

    def begin(self, warn: Callable[[str], object]) -> None:
        """Start the thread. `warn` may be called from it."""
        self._warn = warn
        self._next_report = time.monotonic() + REPORT_SECONDS
        self._thread.start()

    @property
    def is_full(self) -> bool:
        """True if what was offered last did not fit and nothing was sent since, so that nothing need be encoded."""
        return self._had_no_room

    def drop(self, rows: int, why: str = _FULL) -> None:
        """Count rows that are not sent."""
        with self._changed:
            self._lost[why] += rows

    def offer(self, data: Sequence[bytes], rows: int) -> None:
        """Put encoded rows into the queue, or drop and count them if it is full."""
        size = sum(map(len, data))
        with self._changed:
            if self._is_over or self._bytes + size > self._most_bytes:
                self._lost[_AT_END if self._is_over else _FULL] += rows
                self._had_no_room = self._bytes > 0
                return
            self._items.append(Item(data, rows, size, time.monotonic()))
            self._bytes += size
            if len(self._items) == 1 or self._is_enough():
                self._changed.notify()

    def finish(self, seconds: float | None = None) -> None:
        """Send what waits, for at most this time. Returns immediately."""
        with self._changed:
            self._deadline = time.monotonic() + (CLOSE_SECONDS if seconds is None else seconds)
            self._changed.notify()

    def close(self) -> None:
        """Wait for the end of `finish`. What is left then is counted as lost."""
        assert self._deadline is not None
        if self._thread.ident is not None:
            self._thread.join(max(0.0, self._deadline - time.monotonic()))
        with self._changed:
            self._is_over = True
            left = [*self._sending, *self._items]
            self._lost[f"{_AT_END}; {self._problem}" if self._problem else _AT_END] += sum(item.rows for item in left)
            self._lost = +self._lost
            self._sending.clear()
            self._items.clear()
            self._changed.notify()

    def counts(self) -> Counts:
        """Return what became of the rows so far."""
        with self._changed:
            items = (*self._sending, *self._items)
            lag = time.monotonic() - items[0].since if items else 0.0
            waiting = sum(item.rows for item in items)
            return Counts(self._delivered, waiting, dict(self._lost), self._problem, self._bytes, lag)

    # The thread.

    def _work(self) -> None:
        try:
            while self._take() and self._deliver():
                pass
        finally:
            self._transport.end()

    def _take(self) -> bool:
        """Move items from the queue to `_sending`. Return False when there is nothing more to do."""
        with self._changed:
            while not self._items and self._deadline is None:
                self._changed.wait(self._report_in())
                self._report()
            if self._transport.linger:
                self._changed.wait_for(self._is_enough, self._transport.linger)
            size = 0
            while self._items and len(self._sending) < self._transport.most_items:
                size += self._items[0].size
                if self._sending and size > MOST_AT_ONCE:
                    break
                self._sending.append(self._items.popleft())
            return bool(self._sending)

    def _is_enough(self) -> bool:
        """Return True if waiting for more items has no use."""
        is_large = self._bytes >= MOST_AT_ONCE or len(self._items) >= self._transport.most_items
        return is_large or self._deadline is not None

    def _deliver(self) -> bool:
        """Send `_sending`, as often as that takes. Return False if there is no time for it any more."""
        pause = FIRST_PAUSE
        while self._sending:
            items = self._sending[: self._transport.most_items]
            try:
                refused = self._transport.send(items)
                why = self._transport.why[:_LONGEST_CAUSE] if refused else ""
            except TooLarge as error:
                if len(items) > 1:
                    self._transport.most_items = len(items) // 2
                    continue
                refused, why = items[0].rows, str(error)
            except Refused as error:
                refused, why = sum(item.rows for item in items), str(error)
            except (NotNow, OSError) as error:
                self._count(items[: self._transport.taken], 0, "")
                if not self._wait(error, pause):
                    return False
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            pause = FIRST_PAUSE
            self._done(items, refused, why)
        return not self._is_over

    def _count(self, items: Sequence[Item], refused: int, why: str) -> None:
        """Count items that are no longer to be sent."""
        with self._changed:
            if self._is_over:
                return
            del self._sending[: len(items)]
            self._had_no_room = self._had_no_room and not items
            self._bytes -= sum(item.size for item in items)
            self._delivered += sum(item.rows for item in items) - refused
            if refused:
                self._lost[why if why in self._lost or len(self._lost) < _MOST_CAUSES else _OTHER] += refused

    def _done(self, items: Sequence[Item], refused: int, why: str) -> None:
        why = why or ("refused by the target" if refused else "")
        self._count(items, refused, why)
        with self._changed:
            if self._is_over:
                return
            self._problem = ""
            now = time.monotonic()
            if self._is_unsteady and not self._is_failing and now - self._again_at > STEADY_SECONDS:
                self._is_unsteady = False
                self._warn(f"export {self.name}: it takes {self._noun}s again")
            if self._is_failing and not refused:
                self._is_failing, self._again_at = False, now
                if not self._is_unsteady:
                    self._warn(f"export {self.name}: it takes {self._noun}s again")
            elif why and not self._is_failing:
                self._is_failing = True
                self._warn(f"export {self.name}: {count(refused, self._noun)} refused: {why}")
            self._report()

    def _wait(self, error: Exception, pause: float) -> bool:
        """Wait until the next attempt. Return False if there is none any more."""
        asked = error.after if isinstance(error, NotNow) else None
        seconds = pause * random.uniform(0.8, 1.2) if asked is None else min(max(asked, 0.05), LONGEST_RETRY_AFTER)
        until = time.monotonic() + seconds
        with self._changed:
            self._problem = _words(error)
            if not self._is_failing and not self._is_over:
                self._is_failing = True
                self._say_failure()
            while not self._is_over and (left := until - time.monotonic()) > 0:
                if self._deadline is not None and until > self._deadline:
                    is_last, self._is_last = self._is_last, True
                    return not is_last  # `close` counts what is left then
                self._changed.wait(min(left, self._report_in()))
                self._report()
            return not self._is_over

    def _say_failure(self) -> None:
        if time.monotonic() - self._again_at > STEADY_SECONDS:
            self._is_unsteady = False
            self._warn(f"export {self.name}: {self._problem}; {self._noun}s wait, and it is tried again")
        elif not self._is_unsteady:
            self._is_unsteady = True
            self._warn(f"export {self.name}: it fails again and again: {self._problem}; see what it logs")

    def _report_in(self) -> float:
        return max(0.01, self._next_report - time.monotonic())

    def _report(self) -> None:
        """Say each minute what was lost since the last time."""
        if time.monotonic() < self._next_report or self._is_over:
            return
        self._next_report = time.monotonic() + REPORT_SECONDS
        lost = sum(self._lost.values())
        if lost > self._reported or self._problem:
            self._reported = lost
            waiting = sum(item.rows for item in (*self._sending, *self._items))
            counts = Counts(self._delivered, waiting, dict(self._lost), self._problem)
            self._warn(lost_line(self.name, counts, self._noun))


def lost_line(name: str, counts: Counts, noun: str = "row") -> str:
    """Return what was not delivered, and why, in one line."""
    causes = ", ".join(f"{number:,}: {cause}" for cause, number in sorted(counts.lost.items(), key=lambda one: -one[1]))
    waits = f"; {counts.waiting:,} wait" if counts.waiting else ""
    problem = f"; {counts.problem}" if counts.problem and counts.problem not in causes else ""
    lost = f"{count(counts.total_lost, noun)} not delivered" + (f" ({causes})" if causes else "")
    return f"export {name}: {lost}{waits}{problem}"


def _words(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
