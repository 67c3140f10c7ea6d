"""What lives as long as a run, and in a replay until Ctrl-C: ports where others ask for what is exported."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kubectl_gadget.run.coverage import Coverage
    from kubectl_gadget.run.services import Surroundings


class Serving:
    """A service beside a run. It knows the run's nodes, and closes ports at the end."""

    def __init__(self) -> None:
        self.stops: list[Callable[[], object]] = []
        """are called at the end"""
        self._run: Surroundings | None = None

    def covered(self) -> "Coverage | None":
        """Return who is traced, and what was lost; None: unknown."""
        return self._run.covered() if self._run else None

    @asynccontextmanager
    async def serve(self, run: "Surroundings") -> AsyncIterator[None]:
        """See Service."""
        self._run = run
        try:
            yield
        finally:
            for stop in self.stops:
                stop()
