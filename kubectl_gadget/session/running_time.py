"""A clock that stands still while this process does: stopped (Ctrl-Z), asleep, or blocked in a write.

Rows wait for those of other nodes for a bounded time. The trap: after a stop that time would be over for all of them
at once, before anything that came meanwhile was read. So whoever looks seldom sees that little time has passed.
"""

import time
from collections.abc import Callable

_MOST_NS = 500_000_000
"""That passes between two looks. Whoever looks at least this often sees true time."""


class RunningTime:
    """Call it for nanoseconds that only differences of mean anything."""

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._last = clock()
        self._passed = 0

    def __call__(self) -> int:
        now = self._clock()
        self._passed += min(now - self._last, _MOST_NS)
        self._last = now
        return self._passed
