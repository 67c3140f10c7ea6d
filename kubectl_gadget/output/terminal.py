"""The terminal: its properties, the colors of output, and keys that are pressed while something else prints.

The size is queried at each write instead of on SIGWINCH, so that it is right on every system and needs no signal
handler; a pipe is not a terminal, even if `--color=always` sends colors into it.
"""

import os
import select
import threading
import zlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from kubectl_gadget.errors import UsageError

RED = "31"
POD_COLORS = ("32", "33", "34", "35", "36", "92", "93", "94", "95", "96")
COLOR_CHOICES = ("auto", "always", "never")


@dataclass(frozen=True)
class Terminal:
    """A terminal. `width` returns its current number of columns; `color` says whether it wants colors."""

    width: Callable[[], int]
    color: bool = True
    height: Callable[[], int] = lambda: 24
    """returns its current number of lines"""


def find_terminal(stream: Any, environ: Mapping[str, str]) -> Terminal | None:
    """The terminal behind a stream; None if it is a file or a pipe. NO_COLOR and TERM=dumb turn colors off."""
    if not stream.isatty():
        return None
    descriptor = stream.fileno()

    def width() -> int:
        try:
            return os.get_terminal_size(descriptor).columns or 80
        except OSError:  # the terminal is gone; the next write will fail
            return 80

    def height() -> int:
        try:
            return os.get_terminal_size(descriptor).lines or 24
        except OSError:
            return 24

    return Terminal(width, not environ.get("NO_COLOR") and environ.get("TERM") != "dumb", height)


def wants_color(option: str, terminal: Terminal | None) -> bool:
    """True if to use colors, from `--color`. Raises UsageError for an invalid value."""
    if option not in COLOR_CHOICES:
        raise UsageError(f"invalid --color {option!r}", f"one of {', '.join(COLOR_CHOICES)}")
    return option == "always" or (option == "auto" and terminal is not None and terminal.color)


def pod_color(key: str) -> str:
    """A pod's color: the same in every run. Empty outside of pods."""
    return POD_COLORS[zlib.crc32(key.encode("utf-8", "replace")) % len(POD_COLORS)] if key else ""


def paint(text: str, color: str) -> str:
    """The text in a color (an SGR code); unchanged if there is none."""
    return f"\x1b[{color}m{text}\x1b[0m" if color else text


# Reads keys from a terminal while something else prints.


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
