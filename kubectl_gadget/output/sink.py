"""The interface of all sinks: rows go in, text goes to the given stream.

The trap: a closed pipe and a full disk are not caught here. write, flush and close raise the OSError unchanged, and the
session's caller decides what it means.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import IO, Any

from kubectl_gadget.rows.rows import Rows


class Sink(ABC):
    """Takes rows until it is closed. It does not own its stream."""

    rows_at_once = 4096
    """The largest chunk. With 16,384, JSON lines of opens took 28 MB instead of 14, and no less time."""

    def start(self) -> None:  # noqa: B027
        """Called when the run begins, before there are rows. A table prints its header with the first rows, to fit it
        to them."""

    def take_keys(self, quit: Callable[[], object]) -> Callable[[str], None] | None:
        """Return the handler of key presses, if this sink has one; `quit` ends the run."""
        return None

    def write(self, rows: Rows) -> None:
        """Prints rows. Raises OSError if the stream does, such as BrokenPipeError."""
        # A thousand nodes may release 100,000 rows together; their text must not be in memory as a whole.
        for chunk in rows.chunks(self.rows_at_once):
            if len(chunk):
                self.write_chunk(chunk)
                for part in chunk.parts:
                    part.forget_columns()

    def write_block(self, rows: Rows) -> None:
        """Prints the rows of one interval, which may be empty. Raises OSError as `write` does."""
        self.write(rows)

    def gap(self, node: str, seconds: float, until_ns: int) -> None:  # noqa: B027
        """Reports that a node's rows of this many seconds are missing, until this wall time. For machines; people see
        it on standard error. Raises OSError as `write` does."""

    @abstractmethod
    def write_chunk(self, rows: Rows) -> None:
        """Prints some rows, at least one. Raises OSError as `write` does."""

    @abstractmethod
    def flush(self) -> None:
        """Writes what is buffered. Raises OSError if the stream does."""

    @abstractmethod
    def close(self) -> None:
        """Prints the end of the output and flushes. The stream stays open."""


class StreamSink(Sink):
    """Writes to one stream, of text or of bytes, and buffers nothing itself."""

    def __init__(self, stream: IO[Any]) -> None:
        self._stream = stream

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        self.flush()


class WholeSink(Sink):
    """Takes all rows of a call together, and buffers none: for checks, collections, triggers and other sinks."""

    @abstractmethod
    def write(self, rows: Rows) -> None:
        """Takes rows, in order of time."""

    def write_chunk(self, rows: Rows) -> None:
        self.write(rows)

    def flush(self) -> None:
        """Does nothing: no row is buffered."""

    def close(self) -> None:
        """Does nothing: no row is buffered."""


class TakingSink(WholeSink):
    """Passes rows on to a function."""

    def __init__(self, take: Callable[[Rows], object]) -> None:
        self._take = take

    def write(self, rows: Rows) -> None:
        self._take(rows)
