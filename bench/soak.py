"""Mixed load for half an hour: do the memory and the descriptors of agent and client stay as they are?

    sudo .venv/bin/python bench/soak.py [--seconds 1800]

Pods open files, execute programs and connect, and pods come and go, while one client traces these pods. Each 5 s the
resident memory and the open descriptors of both are read. It prints the slope of a line through the second half of
these (by least squares), and ends with 1 when memory grew by more than 1 MiB in it, or a descriptor is left.
The trap: memory settles at first (buffers, caches of names), so the first half says nothing.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from kubectl_gadget.demo import DemoPods
from tests.reliability.local_run import LocalRun

LOAD = (
    "while :; do i=0; while [ $i -lt 200 ]; do : </etc/hosts; i=$((i+1)); done;"
    " /bin/true; echo | nc -w1 127.0.0.1 9 2>/dev/null; usleep 20000; done"
)
EVERY = 5.0
MOST_GROWTH = 1 << 20
"""Bytes in the second half."""


def memory_of(pid: int) -> int:
    """Resident bytes."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) << 10


def descriptors_of(pid: int) -> int:
    """How many it has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def slope(points: list[tuple[float, float]]) -> float:
    """Of the line through the points, by least squares."""
    count = len(points)
    middle, height = (sum(axis) / count for axis in zip(*points, strict=True))
    spread = sum((x - middle) ** 2 for x, _ in points)
    return sum((x - middle) * (y - height) for x, y in points) / spread if spread else 0.0


def main(seconds: float) -> int:
    """The exit code."""
    samples: dict[str, list[tuple[float, int, int]]] = {"agent": [], "client": []}
    with (
        tempfile.TemporaryDirectory() as folder,
        DemoPods(Path(f"/run/kubectl-gadget-soak-{os.getpid()}")) as pods,
        LocalRun(Path(folder), "trace", "exec+open+tcp", "-n", "soak", "-o", "json", stdout=subprocess.DEVNULL) as run,
    ):
        for name in ("one", "two"):
            pods.start_pod("soak", name, {"main": ["/bin/sh", "-c", LOAD]})
        begun, turn = time.monotonic(), 0
        while (now := time.monotonic() - begun) < seconds:
            pods.run_short("soak", f"short-{turn % 50}", ["/bin/true"])
            turn += 1
            for who, pid in (("agent", run.agent), ("client", run.process.pid)):
                samples[who].append((now, memory_of(pid), descriptors_of(pid)))
            time.sleep(max(0.0, EVERY - (time.monotonic() - begun - now)))
        run.stop()
        summary = run.said().splitlines()[-1]
    return report(samples, summary)


def report(samples: dict[str, list[tuple[float, int, int]]], summary: str) -> int:
    """Prints the table and the JSON. The exit code."""
    bad, results = False, {}
    for who, found in samples.items():
        half = found[len(found) // 2 :]
        growth = slope([(at, float(size)) for at, size, _ in half]) * 3600
        left = half[-1][2] - half[0][2]
        results[who] = {
            "mebibytes": half[-1][1] / (1 << 20),
            "mebibytes_an_hour": growth / (1 << 20),
            "descriptors": left,
            "every_five_minutes": [round(size / (1 << 20), 1) for _, size, _ in found[:: round(300 / EVERY)]],
        }
        sys.stdout.write(
            f"{who:6} {half[-1][1] / (1 << 20):6.1f} MiB  {growth / (1 << 20):+8.2f} MiB/h  "
            f"{half[-1][2]} descriptors ({left:+})\n"
        )
        bad = bad or growth / 3600 * (half[-1][0] - half[0][0]) > MOST_GROWTH or left > 0
    sys.stdout.write(f"{summary}\n{json.dumps(results)}\n")
    return int(bad)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1800.0)
    sys.exit(main(parser.parse_args().seconds))
