"""Targets of an export: what each does, those that get rows as they come, and ports where others ask for rows."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from kubectl_gadget.export.delivery import Counts, Delivery, Transport, lost_line
from kubectl_gadget.export.targets import Target
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.wording import count

if TYPE_CHECKING:
    from kubectl_gadget.run.coverage import Coverage
    from kubectl_gadget.run.services import Surroundings

ROWS_AT_ONCE = 2048
"""in an item, which is sent or refused as a whole"""


class Encoder(Protocol):
    """Makes what one target gets of rows."""

    def encode(self, rows: Rows) -> Sequence[bytes]:
        """Return the rows; there is at least one."""

    def gap(self, node: str, seconds: float, until_ns: int) -> Sequence[bytes]:
        """Return the record of a time for which a node's rows are missing."""


class Sending(Protocol):
    """One target. All calls come from the pipeline's thread."""

    def begin(self, warn: Callable[[str], object]) -> None:
        """Start. `warn` is called from any thread."""

    def write(self, shown: Rows, everything: Rows) -> None:
        """Take rows that are shown, and the rows of a table that --max-rows leaves out."""

    def gap(self, node: str, seconds: float, until_ns: int) -> None:
        """Take the record of a time for which a node's rows are missing."""

    def tick(self, now_ns: int) -> None:
        """Take the time, of any clock that a replay repeats. Called often."""

    def finish(self) -> None:
        """Send what waits, for a few seconds. Returns immediately."""

    def close(self) -> None:
        """Wait for the end of `finish`."""

    @property
    def lost(self) -> int:
        """The number of rows that it did not get. Known after `close`."""

    def counts(self) -> Iterator[tuple[str, Counts]]:
        """Yield what it gets, such as rows and spans, and what became of that. May be called from any thread."""

    def summary(self) -> Iterator[str]:
        """Yield a line."""

    def losses(self) -> Iterator[str]:
        """Yield a line if it did not get all rows."""


class Untimed:
    """Do the part that needs no time."""

    def tick(self, now_ns: int) -> None:
        """See Sending."""


class Sent(Untimed):
    """A target that gets rows as they come."""

    def __init__(self, target: Target, encoder: Encoder, transport: Transport) -> None:
        self._encoder = encoder
        self.delivery = Delivery(target.name, transport)
        self.begin, self.finish, self.close = self.delivery.begin, self.delivery.finish, self.delivery.close

    def write(self, shown: Rows, everything: Rows) -> None:
        """See Sending."""
        for chunk in shown.chunks(ROWS_AT_ONCE):
            if self.delivery.is_full:
                self.delivery.drop(len(chunk))
            else:
                self.delivery.offer(self._encoder.encode(chunk), len(chunk))

    def gap(self, node: str, seconds: float, until_ns: int) -> None:
        """See Sending."""
        self.delivery.offer(self._encoder.gap(node, seconds, until_ns), 0)

    @property
    def lost(self) -> int:
        """See Sending."""
        return self.delivery.counts().total_lost

    def counts(self) -> Iterator[tuple[str, Counts]]:
        """See Sending."""
        yield "row", self.delivery.counts()

    def summary(self) -> Iterator[str]:
        """See Sending."""
        yield f"export {self.delivery.name}: {count(self.delivery.counts().delivered, 'row')} delivered"

    def losses(self) -> Iterator[str]:
        """See Sending."""
        if (counts := self.delivery.counts()).lost:
            yield lost_line(self.delivery.name, counts)


class Serving:
    """A service beside a run, or a replay until Ctrl-C. It knows the run's nodes, and closes ports at the end."""

    def __init__(self) -> None:
        self.stops: list[Callable[[], object]] = []
        """are called at the end"""
        self.sendings: list[tuple[str, Sending]] = []
        """the targets of the run, with their names"""
        self._run: Surroundings | None = None

    def covered(self) -> "Coverage | None":
        """Return who is traced, and what was lost; None: unknown."""
        return self._run.covered() if self._run else None

    def delivered(self) -> "Iterator[tuple[str, str, Counts]]":
        """Yield each target's name, what it gets, and what became of that."""
        for name, sending in self.sendings:
            for what, counts in sending.counts():
                yield name, what, counts

    @asynccontextmanager
    async def serve(self, run: "Surroundings") -> AsyncIterator[None]:
        """See Service."""
        self._run = run
        try:
            yield
        finally:
            for stop in self.stops:
                stop()
