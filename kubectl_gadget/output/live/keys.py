"""Reads keys from a terminal while something else prints.

The trap: the terminal must be restored when the program ends, however it ends; so use Keys in a with statement. Ctrl-C
still sends a signal.
"""

import os
import select
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Self

_LOOK_SECONDS = 0.1


class Keys:
    """Calls `pressed` with each key, from its own thread."""

    def __init__(self, descriptor: int, pressed: Callable[[str], object]) -> None:
        self._descriptor = descriptor
        self._pressed = pressed
        self._before: list[int | list[bytes | int]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, name="keys", daemon=True)

    def __enter__(self) -> Self:
        import termios  # Windows has none, and no terminal that can_read_keys finds
        import tty

        self._before = termios.tcgetattr(self._descriptor)
        tty.setcbreak(self._descriptor, termios.TCSANOW)
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        import termios

        self._over.set()
        self._thread.join()
        termios.tcsetattr(self._descriptor, termios.TCSANOW, self._before)

    def _read(self) -> None:
        while not self._over.is_set():
            if not select.select([self._descriptor], [], [], _LOOK_SECONDS)[0]:
                continue
            data = os.read(self._descriptor, 64)
            if not data:
                return
            text = data.decode(errors="ignore")
            # Arrow keys and similar send an escape sequence; they are ignored.
            for key in text if not text.startswith("\x1b") or text == "\x1b" else "":
                self._pressed(key)


def reading_keys(stream: object, pressed: Callable[[str], object] | None) -> AbstractContextManager[object]:
    """Reads keys in a with statement, unless nothing handles them, or `stream` is not a terminal, or another job has
    it."""
    descriptor = None if pressed is None else _terminal(stream)
    return nullcontext() if descriptor is None or pressed is None else Keys(descriptor, pressed)


def _terminal(stream: object) -> int | None:
    """Returns the file descriptor of a terminal whose foreground is this job, or None."""
    try:
        descriptor: int = stream.fileno()  # type: ignore[attr-defined]
        if os.isatty(descriptor) and os.tcgetpgrp(descriptor) == os.getpgrp():
            return descriptor
    except (OSError, ValueError, AttributeError):
        return None
    return None
