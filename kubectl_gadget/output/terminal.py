"""Properties of the terminal that output goes to, and its colors.

The trap: the size is queried at each write instead of on SIGWINCH, so that it is right on every system and needs no
signal handler; a pipe is not a terminal, even if `--color=always` sends colors into it.
"""

import os
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from kubectl_gadget.errors import UsageError
from kubectl_gadget.light_dataclasses import dataclass

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
    """Whether to use colors, from `--color`. Raises UsageError for an invalid value."""
    if option not in COLOR_CHOICES:
        raise UsageError(f"invalid --color {option!r}", f"one of {', '.join(COLOR_CHOICES)}")
    return option == "always" or (option == "auto" and terminal is not None and terminal.color)


def pod_color(key: str) -> str:
    """A pod's color: the same in every run. Empty outside of pods."""
    return POD_COLORS[zlib.crc32(key.encode("utf-8", "replace")) % len(POD_COLORS)] if key else ""


def paint(text: str, color: str) -> str:
    """The text in a color (an SGR code); unchanged if there is none."""
    return f"\x1b[{color}m{text}\x1b[0m" if color else text
