"""Of what time a node's events are complete, and which spans are missing: what its frames say, over all connections.

An agent says with each EVENTS frame until when (its own boot time) all has been sent. So a span is missing from there
to the moment at which the next connection's programs were attached. The trap: when a frame is read says nothing, since
a client that was stopped reads frames that are as old as its sleep; and boot time begins anew when a node restarts.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from kubectl_gadget.wire.agent_messages import Hello, Pong, Started, Stats

_DRIFT = 1e-4
"""By how much the speeds of two clocks that are never set may differ."""


@dataclass(frozen=True)
class Gap:
    """A span of which a node's events are missing."""

    seconds: float
    until_ns: int
    """wall time of the node at its end; 0 when that is not known"""


def awake_or_not_ns() -> int:
    """A clock that is never set and goes on while this machine sleeps, where there is one."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return time.monotonic_ns()


class Coverage:
    """One node's. Times of the node are boot time in ns; those of this machine are `clock`'s."""

    def __init__(self, clock: Callable[[], int] = awake_or_not_ns) -> None:
        self._clock = clock
        self._boot_id: str | None = None
        self._offset = 0
        """from boot time to wall time, as the node last said"""
        self._complete: dict[int, int] = {}
        """by gadget, of the connection that runs now"""
        self._ahead: int | None = None
        """how far our clock is ahead of the node's boot time, at most: the smallest that was seen"""
        self._ahead_at = 0
        self._lost: tuple[str | None, int, int] | None = None
        """boot id, until when all is known, and the offset to wall time"""

    def greeted(self, hello: Hello) -> None:
        """Takes HELLO, with which a connection begins."""
        if hello.boot_id != self._boot_id:
            self._boot_id = hello.boot_id
            self._ahead = None
        self.clocks(hello)

    def clocks(self, message: Hello | Started | Stats | Pong) -> None:
        """Takes a message that bears the node's clocks."""
        if message.boot_ns is not None and message.realtime_ns is not None:
            self._offset = message.realtime_ns - message.boot_ns
            self._seen(message.boot_ns)

    def attached(self, gadgets: int, started: Started) -> Gap | None:
        """Takes STARTED: from here on all is seen. The span that is missing until now, if there is one."""
        self.clocks(started)
        now = self._node_now() if started.boot_ns is None else started.boot_ns
        self._complete = dict.fromkeys(range(gadgets), now)
        return self._end_gap(now)

    def complete(self, gadget: int, until: int) -> None:
        """Takes what an EVENTS frame says."""
        if gadget in self._complete:
            self._complete[gadget] = max(self._complete[gadget], until)
            self._seen(until)

    def lost(self) -> None:
        """The connection is lost; unless nothing ran on it, a span begins that is missing."""
        if self._complete:
            self._lost = (self._boot_id, min(self._complete.values()), self._offset)
        self._complete = {}

    def end(self) -> Gap | None:
        """The run is over: the span that is missing until now, if there is one."""
        return self._end_gap(self._node_now())

    def _end_gap(self, now: int) -> Gap | None:
        if self._lost is None:
            return None
        (boot_id, since, offset), self._lost = self._lost, None
        if boot_id != self._boot_id or now < since:
            since += offset - self._offset  # the node restarted, and its time began anew
        return Gap(max(0, now - since) / 1e9, now + self._offset)

    def _seen(self, boot: int) -> None:
        """Something of the node's time `boot` is here: so far our clock is ahead, and some way of the frame."""
        now = self._clock()
        known = None if self._ahead is None else self._ahead + int((now - self._ahead_at) * _DRIFT)
        self._ahead = now - boot if known is None else min(known, now - boot)
        self._ahead_at = now

    def _node_now(self) -> int:
        """The node's boot time now, as far as frames tell."""
        return self._clock() - (self._ahead or 0)
