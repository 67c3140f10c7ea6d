"""A run of the command line in the background, for tests that act in the meantime, or disturb it.

It writes to files, so it continues without a reader; a test that is about a reader passes its own standard output.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from tests.waiting import PATIENCE, wait_until

PROJECT = Path(__file__).resolve().parents[1]
GADGET = (sys.executable, "-m", "kubectl_gadget.cli.main")


class GadgetRun:
    """`kubectl gadget WORDS`: attached when the `with` block begins, and ended when it ends."""

    def __init__(
        self,
        folder: Path,
        *words: str,
        stdout: IO[Any] | int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.out, self.err = folder / "out", folder / "err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [*GADGET, *words],
                cwd=PROJECT,
                stdout=out if stdout is None else stdout,
                stderr=err,
                env=os.environ | {"PYTHONUNBUFFERED": ""} | (environment or {}),
            )

    def __enter__(self) -> Self:
        self.until_said("press Ctrl-C to stop")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        self.process.wait(PATIENCE)
        if kind is None:
            assert "Traceback" not in self.said()
            assert "Exception ignored" not in self.said()

    def said(self) -> str:
        """Its standard error so far."""
        return self.err.read_text()

    def until_said(self, text: str) -> None:
        self.until(lambda: text in self.said(), repr(text))

    def until_printed(self, line: str) -> None:
        """Waits until this line is in its output file."""
        self.until(lambda: f"\n{line}\n" in f"\n{self.out.read_text()}", repr(line))

    def until(self, condition: Callable[[], object], what: str = "") -> None:
        """Waits until the condition holds. Fails when the run ends before."""
        wait_until(condition, what, state=self.said, over=lambda: self.process.poll() is not None)

    def rows(self) -> list[dict[str, Any]]:
        """The rows that it has written with `-o json` so far."""
        lines = self.out.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def stop(self, number: int = signal.SIGINT) -> int:
        """Ends it in an orderly way. Returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


def until_under_way(process: subprocess.Popen[str]) -> None:
    """Reads a run's standard error until it reports that it runs. Fails if the run ends before."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if "press Ctrl-C to stop" in line:
            break
    assert said, "it ended at once"
    assert "press Ctrl-C to stop" in said[-1], "".join(said)
