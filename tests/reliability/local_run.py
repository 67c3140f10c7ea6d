"""A run of the command line on this machine, with the real agent as its child, for tests that do harm to either.

The trap: it writes to files, so that nobody has to read for it to go on; a test that is about a reader gives its own
standard output.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from tests.reliability.held import PATIENCE, Held, held_by, until_freed, until_gone

PROJECT = Path(__file__).resolve().parents[2]
GADGET = (sys.executable, "-m", "kubectl_gadget.cli.main")
LOST = re.compile(r"; lost: ([\d,]+)")


class LocalRun:
    """`kubectl gadget WORDS --local`, attached when the `with` block begins; what it holds is freed when it ends."""

    def __init__(self, folder: Path, *words: str, stdout: IO[Any] | int | None = None) -> None:
        self.out, self.err = folder / "out", folder / "err"
        self.held: Held = frozenset()
        self.agent = 0
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [*GADGET, *words, "--local"],
                cwd=PROJECT,
                stdout=out if stdout is None else stdout,
                stderr=err,
                env=os.environ | {"PYTHONUNBUFFERED": ""},
            )

    def __enter__(self) -> Self:
        self.until_said("tracing")
        self.agent = child_of(self.process.pid)
        self.held = held_by(self.agent)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        self.process.wait(PATIENCE)
        if kind is None:
            until_gone(self.agent)
            until_freed(self.held)
            assert "Traceback" not in self.said()
            assert "Exception ignored" not in self.said()

    def said(self) -> str:
        """What it wrote to standard error so far."""
        return self.err.read_text()

    def until_said(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while text not in self.said():
            assert self.process.poll() is None, f"it has ended: {self.said()}"
            assert time.monotonic() < deadline, f"it did not say {text!r} but {self.said()!r}"
            time.sleep(0.05)

    def stop(self, number: int = signal.SIGINT) -> int:
        """Ends it in order. The exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

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
