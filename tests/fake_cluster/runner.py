"""Runs of the command line on a fake cluster, for tests that act in the meantime."""

import asyncio
import json
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.gadget_run import GADGET
from tests.waiting import PATIENCE, read_until


@dataclass
class Outcome:
    """The exit code of a run, its rows, and its standard error."""

    code: int
    rows: list[dict[str, Any]]
    errors: str


class Runner:
    """`kubectl gadget` with the cluster of a kubeconfig, one run at a time."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, *words: str) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *GADGET,
            *words,
            "--kubeconfig",
            str(self._kubeconfig),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._errors = b""

    async def until_said(self, *texts: str) -> None:
        """Wait until standard error has all of these texts."""
        assert self.process is not None
        self._errors = await read_until(self.process.stderr, *texts, said=self._errors)

    async def finish(self, interrupt: bool = True) -> Outcome:
        code, output, errors = await self.end(interrupt)
        return Outcome(code, [json.loads(line) for line in output.splitlines()], errors)

    async def end(self, interrupt: bool = True) -> tuple[int, str, str]:
        """Return the exit code, and what it wrote to both streams."""
        assert self.process is not None
        if interrupt:
            self.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE):
            out, errors = await self.process.communicate()
        return self.process.returncode or 0, out.decode(), (self._errors + errors).decode()
