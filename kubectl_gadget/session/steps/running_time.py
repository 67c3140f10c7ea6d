"""A clock that stops while this process does not run: stopped (Ctrl-Z), asleep, or blocked in a write.

Rows wait a bounded time for those of other nodes. The trap: after a pause that time would be over for all of them at
once, before anything that came meanwhile was read. So between two distant calls this clock advances only a little.
"""

import time
from collections.abc import Callable

_MOST_NS = 500_000_000
"""The most that passes between two calls. Callers that call at least this often see real time."""


class RunningTime:
    """Call it for nanoseconds; only differences between them are meaningful."""

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._last = clock()
        self._passed = 0

    def __call__(self) -> int:
        now = self._clock()
        self._passed += min(now - self._last, _MOST_NS)
        self._last = now
        return self._passed
