"""The standard streams and the terminal: its properties, the colors of output, and pressed keys.

The size is queried at each write instead of on SIGWINCH, so that it is right on every system and needs no signal
handler; a pipe is not a terminal, even if `--color=always` sends colors into it.
"""

import contextlib
import errno
import io
import os
import select
import stat
import sys
import threading
import zlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, NamedTuple, Self, TextIO

from kubectl_gadget.errors import GadgetError, UsageError

RED = "31"
POD_COLORS = ("32", "33", "34", "35", "36", "92", "93", "94", "95", "96")
COLOR_CHOICES = ("auto", "always", "never")


class Terminal(NamedTuple):
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


# The process's standard streams: opens closed ones, and reports failed writes with their reason.


_REMEDIES = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there",
    errno.EBADF: "> FILE, or > /dev/null",
}


class OutputError(GadgetError):
    """Standard output cannot be written."""


class ReaderGoneError(BrokenPipeError):
    """The reader of standard output has exited, as after `| head`."""


def prepare_standard_streams() -> None:
    """Call this once, before anything else is opened: another file must not get the descriptor of a closed stream."""
    if sys.stdin is None:
        sys.stdin = open(os.open(os.devnull, os.O_RDONLY), closefd=False)
    if sys.stdout is None:
        # Opened for reading, so every write fails with EBADF, as for the closed descriptor.
        sys.stdout = open(os.open(os.devnull, os.O_RDONLY), "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(os.open(os.devnull, os.O_WRONLY), "w", closefd=False)
    sys.stdout = _wrapped(sys.stdout, _StandardOutput)
    sys.stderr = _wrapped(sys.stderr, _StandardError)


def require_writable(stream: TextIO) -> None:
    """Raises OutputError if the stream cannot be written, before any work is done."""
    try:
        import fcntl

        flags = fcntl.fcntl(stream.fileno(), fcntl.F_GETFL)
    except (ImportError, OSError, ValueError):
        return  # Windows, or not a file: the first write will fail
    if flags & os.O_ACCMODE == os.O_RDONLY:
        raise _refused(OSError(errno.EBADF, os.strerror(errno.EBADF)))


def reader_is_gone(stream: TextIO) -> bool:
    """True if the other end of a pipe or socket is closed, even if nothing is written. False if unknown."""
    import select

    try:
        descriptor = stream.fileno()
        kind = os.fstat(descriptor).st_mode
        if not (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)):
            return False
        poll = select.poll()
        poll.register(descriptor, 0)
        return bool(poll.poll(0))
    except (AttributeError, OSError, ValueError):
        return False  # Windows, or not a file


def discard(stream: TextIO) -> None:
    """Drops what is left in the stream: otherwise Python would retry at exit, and end with code 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    with contextlib.suppress(OSError, GadgetError):
        stream.flush()


class _StandardOutput(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError as error:
            raise ReaderGoneError(*error.args) from None
        except OSError as error:
            raise _refused(error) from None


class _StandardError(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def _refused(error: OSError) -> OutputError:
    why = "standard output is closed" if error.errno == errno.EBADF else error.strerror
    return OutputError(f"the output cannot be written: {why}", _REMEDIES.get(error.errno or 0))


def _wrapped(stream: TextIO, kind: type[io.FileIO]) -> TextIO:
    """The same stream with its writes wrapped. Unchanged if it is not a file, as for Windows' console."""
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # with PYTHONUNBUFFERED there is no buffer between
    if type(raw) is not io.FileIO:
        return stream
    assert isinstance(stream, io.TextIOWrapper)
    wrapped: Any = kind(raw.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        wrapped if raw is buffer else io.BufferedWriter(wrapped),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
