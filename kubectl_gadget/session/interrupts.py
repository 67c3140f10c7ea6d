"""What a signal asks of a run: the first one ends it in order, a later one leaves at once.

The trap: one wish may come as several signals. `timeout` sends its signal to the process and then to the process group,
and a shell or terminal may add SIGHUP, so all that comes within a second of the first counts as the first.
"""

import time
from collections.abc import Callable

ONE_WISH_SECONDS = 1.0


class Interrupts:
    """The signals of one run."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.signal: int | None = None
        """the first one's number; None: there was none"""
        self._clock = clock
        self._first_at = 0.0

    def take(self, number: int) -> bool:
        """Notes a signal. Whether the user does not want to wait for the end in order."""
        if self.signal is None:
            self.signal, self._first_at = number, self._clock()
            return False
        return self._clock() - self._first_at >= ONE_WISH_SECONDS
