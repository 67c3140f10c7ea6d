"""The process's standard streams: closed ones are opened, and what cannot be written is an error with its reason.

Standard output that is closed refuses every write, so that no command can succeed without showing what it found.
Standard error that cannot be written loses its lines, since there is no other place to say so. The trap: an error of a
write must not be confused with an error of another file, so it is turned into an OutputError where it happens.
"""

import contextlib
import errno
import io
import os
import stat
import sys
from typing import Any, TextIO

from kubectl_gadget.errors import GadgetError

_REMEDIES = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there",
    errno.EBADF: "> FILE, or > /dev/null",
}


class OutputError(GadgetError):
    """Standard output cannot be written."""


def prepare_standard_streams() -> None:
    """To be called once, before anything else is opened: another file must not get the number of a closed stream."""
    if sys.stdin is None:
        sys.stdin = open(os.open(os.devnull, os.O_RDONLY), closefd=False)
    if sys.stdout is None:
        # Opened for reading, so the kernel refuses each write with EBADF, as it does for the closed descriptor.
        sys.stdout = open(os.open(os.devnull, os.O_RDONLY), "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(os.open(os.devnull, os.O_WRONLY), "w", closefd=False)
    sys.stdout = _wrapped(sys.stdout, _StandardOutput)
    sys.stderr = _wrapped(sys.stderr, _StandardError)


def require_writable(stream: TextIO) -> None:
    """Raises OutputError when nothing can be written there, before anything is done for it."""
    try:
        import fcntl

        flags = fcntl.fcntl(stream.fileno(), fcntl.F_GETFL)
    except (ImportError, OSError, ValueError):
        return  # Windows, or not a file: the first write will say it
    if flags & os.O_ACCMODE == os.O_RDONLY:
        raise _refused(OSError(errno.EBADF, os.strerror(errno.EBADF)))


def reader_is_gone(stream: TextIO) -> bool:
    """Whether the other end of a pipe or socket was closed, also when nothing is written. False where unknown."""
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
    """What is left in the stream leads nowhere: at exit Python would try again, and end with 120."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    with contextlib.suppress(OSError, GadgetError):
        stream.flush()


class _StandardOutput(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
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
    """The same stream with other writes. As it is where it is not a file, as on Windows' console."""
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # PYTHONUNBUFFERED has none between
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
