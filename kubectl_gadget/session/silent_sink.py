"""The base of sinks that print nothing: rows go to checks, to a collection, or to a recording's trigger."""

from abc import abstractmethod

from kubectl_gadget.events.rows import Rows
from kubectl_gadget.output.sink import Sink


class SilentSink(Sink):
    """Gets all rows at once, and keeps none back."""

    @abstractmethod
    def write(self, rows: Rows) -> None:
        """Takes rows, in order of time."""

    def write_chunk(self, rows: Rows) -> None:
        self.write(rows)

    def flush(self) -> None:
        """Does nothing: no row is buffered."""

    def close(self) -> None:
        """Does nothing: no row is buffered."""
