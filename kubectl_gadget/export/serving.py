"""Services that live as long as a run, and in a replay until Ctrl-C: ports where others ask for what is exported."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kubectl_gadget.export.delivery import Counts
    from kubectl_gadget.export.sending import Sending
    from kubectl_gadget.run.coverage import Coverage
    from kubectl_gadget.run.services import Surroundings


class Serving:
    """A service beside a run. It knows the run's nodes, and closes ports at the end."""

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
