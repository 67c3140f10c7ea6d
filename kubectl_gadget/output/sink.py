"""The one small interface of all sinks: rows go in, text goes to the stream that was given.

The trap: a closed pipe and a full disk are not caught here. They come out of write, flush or close as the OSError that
they are, and whoever runs the session decides what they mean.
"""

from abc import ABC, abstractmethod

from kubectl_gadget.events.rows import Rows

_ROWS_AT_ONCE = 16384


class Sink(ABC):
    """Takes rows until it is closed. It does not own its stream."""

    def start(self) -> None:  # noqa: B027
        """To be called when the run begins, before there are rows. A table's header waits for them, to fit them."""

    def write(self, rows: Rows) -> None:
        """Prints rows. Raises OSError when the stream does, such as BrokenPipeError."""
        # A thousand nodes may release 100,000 rows at once, and their text must not be in memory as a whole.
        for chunk in rows.chunks(_ROWS_AT_ONCE):
            if len(chunk):
                self.write_chunk(chunk)

    def write_block(self, rows: Rows) -> None:
        """Prints the rows of one interval, of which there may be none. Raises OSError as `write` does."""
        self.write(rows)

    def gap(self, node: str, seconds: float, until_ns: int) -> None:  # noqa: B027
        """A node's rows of so many seconds are missing here, until this wall time. For machines; people are told on
        standard error. Raises OSError as `write` does."""

    @abstractmethod
    def write_chunk(self, rows: Rows) -> None:
        """Prints some rows, at least one. Raises OSError as `write` does."""

    @abstractmethod
    def flush(self) -> None:
        """Sends what is buffered. Raises OSError when the stream does."""

    @abstractmethod
    def close(self) -> None:
        """Prints what has to stand at the end and flushes. The stream stays open."""
