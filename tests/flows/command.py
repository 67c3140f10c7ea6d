"""Runs `kubectl gadget flows` while a block does its deed."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.gadget_run import GADGET, until_under_way

COMMAND = [*GADGET, "flows"]


@contextmanager
def flows(*arguments: str) -> Iterator[list[dict[str, Any]]]:
    """The events are in the list after the block, as -o json has them. Nothing may have been lost."""
    command = [*COMMAND, "-o", "json", *arguments]
    found: list[dict[str, Any]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until_under_way(process)
        try:
            yield found
        finally:
            process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGINT, errors
    assert "lost: 0" in errors, errors
    found += map(json.loads, out.splitlines())
