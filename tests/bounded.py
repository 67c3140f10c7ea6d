"""Runs a command of kubectl-gadget with little memory and time, as bombs are tested."""

import os
import resource
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.gadget_run import GADGET

MEGABYTES = 512
SECONDS = 300.0


class Ended(NamedTuple):
    """How the command ended."""

    code: int
    out: str
    err: str
    seconds: float
    """of CPU time, since the machine may be busy"""
    megabytes: int
    """the most that was resident"""


def run(words: Sequence[object], seconds: float = SECONDS) -> Ended:
    """Runs it to its end. Its data is limited, and what was resident is measured, since a limit of addresses would
    count what libraries reserve."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    process = subprocess.Popen(
        [*GADGET, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    resource.prlimit(process.pid, resource.RLIMIT_DATA, (MEGABYTES << 20, MEGABYTES << 20))
    peak, used = [0], [0.0]
    watch = threading.Thread(target=_watch, args=[process, peak, used])
    watch.start()
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
        watch.join()
    return Ended(
        process.returncode,
        out.decode(errors="replace"),
        err.decode(errors="replace"),
        used[0],
        peak[0] >> 10,
    )


def _watch(process: "subprocess.Popen[bytes]", peak: list[int], used: list[float]) -> None:
    """Reads the largest resident size, in KiB, that the process has had. Its rusage also counts this process, from
    which it was forked."""
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        try:
            lines = status.read_text().splitlines()
            times = status.with_name("stat").read_text().rpartition(")")[2].split()[11:13]
        except OSError:
            return
        peak[0] = max([peak[0], *(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))])
        used[0] = sum(map(int, times)) / os.sysconf("SC_CLK_TCK")
        time.sleep(0.02)
