"""The process's standard streams: opens closed ones, and reports failed writes with their reason.

A closed standard output rejects every write, so that no command can succeed without showing its output. If standard
error cannot be written, its lines are lost, since they cannot be reported anywhere else. An error of a write
must not be confused with an error of another file, so it becomes an OutputError where it happens.
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
