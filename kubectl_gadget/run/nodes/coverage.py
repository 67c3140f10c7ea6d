"""Tracks for which time a node's events are complete, and which spans are missing, over all connections. What comes
out of it is run/coverage.py's record.

With each EVENTS frame an agent reports until when (in its own boot time) everything has been sent. So a missing span
lasts from there until the next connection's programs were attached. The trap: the time when a frame is read proves
nothing, since a client that was stopped later reads frames as old as its pause; and boot time starts again when a node
restarts.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from kubectl_gadget.wire.agent_messages import Hello, Pong, Started, Stats

_DRIFT = 1e-4
"""The largest relative difference in speed between two clocks that are never set."""


@dataclass(frozen=True)
class Gap:
    """A span of time for which a node's events are missing."""

    seconds: float
    until_ns: int
    """wall time of the node at its end; 0 when unknown"""


def awake_or_not_ns() -> int:
    """Returns ns of a clock that is never set and, where there is one, keeps running while this machine sleeps."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return time.monotonic_ns()


class CoverageTracker:
    """The coverage of one node. Times of the node are boot time in ns; those of this machine come from `clock`."""

    def __init__(self, clock: Callable[[], int] = awake_or_not_ns) -> None:
        self._clock = clock
        self._first = clock()
        """before this, the run knew nothing of the node, whatever its agent says"""
        self.attached_ns = 0
        """when all gadgets were attached for the first time, in our clock, at the latest; 0: never"""
        self.began_ns = 0
        """when they were attached for the last time"""
        self.until_ns = 0
        """until when events are complete, in our clock, once the connection has ended"""
        self.missing: list[tuple[int, int]] = []
        """spans within which events are missing, in our clock"""
        self._boot_id: str | None = None
        self._offset = 0
        """from boot time to wall time, as the node last reported"""
        self._complete: dict[int, int] = {}
        """until when events are complete, by gadget, on the present connection"""
        self._ahead: int | None = None
        """upper limit of our clock's lead over the node's boot time: the smallest difference seen"""
        self._ahead_at = 0
        self._lost: tuple[str | None, int, int] | None = None
        """boot id, until when events are complete, and the offset to wall time"""
        self._since = 0
        """when the connection that was lost was attached, by our clock: no span is longer, whatever times a node
        claims"""
        self._attached_at = 0

    def greeted(self, hello: Hello) -> None:
        """Applies HELLO, the first message of a connection."""
        if hello.boot_id != self._boot_id:
            self._boot_id = hello.boot_id
            self._ahead = None
        self.clocks(hello)

    def clocks(self, message: Hello | Started | Stats | Pong) -> None:
        """Applies a message that carries the node's clocks."""
        if message.boot_ns is not None and message.realtime_ns is not None:
            self._offset = message.realtime_ns - message.boot_ns
            self._seen(message.boot_ns)

    def attached(self, gadgets: int, started: Started) -> Gap | None:
        """Applies STARTED: from here on events are complete. Returns the span that is missing until now, if any."""
        self.clocks(started)
        now = self._node_now() if started.boot_ns is None else started.boot_ns
        self._complete = dict.fromkeys(range(gadgets), now)
        self.began_ns = self._ours(now)
        self.attached_ns = self.attached_ns or self.began_ns
        gap = self._end_gap(now)
        self._attached_at = self._clock()
        return gap

    def complete(self, gadget: int, until: int) -> None:
        """Applies the time that an EVENTS frame reports as complete."""
        if gadget in self._complete:
            self._complete[gadget] = max(self._complete[gadget], until)
            self._seen(until)

    def lost(self) -> None:
        """The connection is lost. If programs ran on it, a missing span begins."""
        if self._complete:
            since = min(self._complete.values())
            self._lost = (self._boot_id, since, self._offset)
            self._since = self._attached_at
            self.until_ns = self._ours(since)
        self._complete = {}

    def stopped(self, at_ns: int) -> None:
        """The connection has ended as the run asked at `at_ns` (our clock): until then, nothing is missing."""
        if self._complete:
            self.until_ns = at_ns
        self._complete = {}

    def end(self) -> Gap | None:
        """Returns the span that is missing at the end of the run, if any."""
        return self._end_gap(self._node_now())

    def _end_gap(self, now: int) -> Gap | None:
        if self._lost is None:
            return None
        (boot_id, since, offset), self._lost = self._lost, None
        if boot_id != self._boot_id or now < since:
            since += offset - self._offset  # the node restarted, and its boot time began again
        until = self._ours(now)
        ns = min(max(0, now - since), max(0, self._clock() - self._since))
        self.missing.append((until - ns, until))
        return Gap(ns / 1e9, now + self._offset)

    def _seen(self, boot: int) -> None:
        """Applies a node time `boot` that has arrived: our clock leads by at most the difference, with transfer
        time."""
        now = self._clock()
        known = None if self._ahead is None else self._ahead + int((now - self._ahead_at) * _DRIFT)
        self._ahead = now - boot if known is None else min(known, now - boot)
        self._ahead_at = now

    def _ours(self, boot: int) -> int:
        """Estimates our time of a node's boot time; rather later than earlier, and within the run."""
        return min(max(boot + (self._ahead or 0), self._first), self._clock())

    def _node_now(self) -> int:
        """Estimates the node's boot time now from the frames received."""
        return self._clock() - (self._ahead or 0)
