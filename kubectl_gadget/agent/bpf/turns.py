"""Threads that load BPF objects, one at a time in Python and at the same time in the kernel.

    with turns:                 # in each thread
        ...prepare an object...
        with turns.aside():     # others have their turn
            ...load it...
        ...attach it...

The kernel verifies the programs of several objects in parallel, on several CPUs. One thread at a time does
everything else, so what the objects share needs no locks of its own.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType


class Turns:
    """Whose turn it is. Methods work in a thread that has no turn, too, as where there is one thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._owner = 0

    def __enter__(self) -> "Turns":
        self._changed.acquire()
        self._owner = threading.get_ident()
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", error: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        self._owner = 0
        self._changed.notify_all()
        self._changed.release()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let others have their turn."""
        if self._owner != threading.get_ident():
            yield
            return
        self.__exit__(None, None, None)
        try:
            yield
        finally:
            self.__enter__()

    def wait_while(self, condition: Callable[[], bool]) -> None:
        """Let others have their turn as long as this is true. Only they can end it."""
        while condition() and self._owner == threading.get_ident():
            self._owner = 0
            self._changed.wait()
            self._owner = threading.get_ident()
