"""A run of the command line on this machine, with the real agent as its child, for tests that do harm to either."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from tests.gadget_run import GadgetRun
from tests.reliability.held import Held, held_by, until_freed, until_gone

LOST = re.compile(r"; lost: ([\d,]+)")


class LocalRun(GadgetRun):
    """`kubectl gadget WORDS --local`; what it holds is freed when the `with` block ends."""

    def __init__(
        self,
        folder: Path,
        *words: str,
        stdout: IO[Any] | int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder, *words, "--local", stdout=stdout, environment=environment)
        self.held: Held = frozenset()
        self.agent = 0

    def __enter__(self) -> Self:
        super().__enter__()
        self.agent = child_of(self.process.pid)
        self.held = held_by(self.agent)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if kind is None:
            until_gone(self.agent)
            until_freed(self.held)

    @property
    def lost(self) -> int:
        """As the summary says it."""
        found = LOST.search(self.said())
        assert found, self.said()
        return int(found[1].replace(",", ""))


def child_of(pid: int) -> int:
    """The only child of a process."""
    (child,) = {
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    }
    return child
