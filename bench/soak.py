"""Mixed load for half an hour: do the memory and the descriptors of agent and client stay as they are?

    sudo .venv/bin/python bench/soak.py [--seconds 1800] [--leak 2]

Pods open files, execute programs and connect, and pods come and go, while one client traces these pods. Each 5 s the
resident memory and the open descriptors of both are read. It prints how memory grew in the second half of these, and
exits with 1 when that is more than GROWTH, or a descriptor is left. `--leak` makes both leak that many KiB a second, to
verify that it is detected.

The agent keeps the names of the last 2,048 containers, which would take hours to come, so more than those come and go
first; and memory grows in steps, since the client takes more after it was delayed. So what counts is the median of its
growth in a fifth of the time: a single step is in few of these, a leak in most, even if it grows in steps.
"""

import argparse
import json
import os
import re
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from kubectl_gadget.agent.containers import ring_fairness
from kubectl_gadget.agent.host.cgroups import find_root
from kubectl_gadget.demo import DemoPods
from kubectl_gadget.demo.runc import BundleSpec
from tests.reliability.local_run import LocalRun

LOAD = (
    "while :; do i=0; while [ $i -lt 200 ]; do : </etc/hosts; i=$((i+1)); done;"
    " /bin/true; echo | nc -w1 127.0.0.1 9 2>/dev/null; usleep 20000; done"
)
EVERY = 5.0
GROWTH = {"agent": 1 << 20, "client": 4 << 20}
"""Bytes per hour."""
LEAK = Path(__file__).parent / "loops" / "leak.c"
_FILL = ring_fairness.MOST + 200
_AT_ONCE = 50


def memory_of(pid: int) -> int:
    """Resident memory in bytes."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) << 10


def descriptors_of(pid: int) -> int:
    """The number of open descriptors."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The median of the slopes between all pairs of points that are a fifth of the whole time apart."""
    apart = max(1, len(points) // 5)
    pairs = zip(points, points[apart:], strict=False)
    return statistics.median((y - before) / (x - since) for (since, before), (x, y) in pairs)


def fill(state: Path) -> None:
    """Creates and removes more containers than the agent keeps names of: bundles and cgroups, without a process."""
    tasks = state / "io.containerd.runtime.v2.task" / "k8s.io"
    above = Path(find_root()) / f"soak-{os.getpid()}"
    above.mkdir()
    for first in range(0, _FILL, _AT_ONCE):
        made = []
        for number in range(first, first + _AT_ONCE):
            id, sandbox, pod = secrets.token_hex(32), secrets.token_hex(32), f"filled-{number}"
            spec = BundleSpec(id, sandbox, "soak", pod, pod, "main", "image", [], 0, f"/{above.name}/{id}", None)
            made.append((tasks / id, above / id))
            (tasks / id).mkdir(parents=True)
            (tasks / id / "config.json").write_text(json.dumps(spec.config()))
            (above / id).mkdir()
        time.sleep(0.2)
        for bundle, cgroup in made:
            cgroup.rmdir()
            shutil.rmtree(bundle)
    above.rmdir()


def leaking(folder: Path, kibibytes: int) -> dict[str, str]:
    """An environment in which every program leaks this many KiB per second."""
    library = folder / "leak.so"
    command = ["cc", "-O0", "-shared", "-fPIC", f"-DBYTES={kibibytes << 10}", "-o", str(library), str(LEAK)]
    subprocess.run(command, check=True)
    return {"LD_PRELOAD": str(library)}


def main(seconds: float, leak: int) -> int:
    """Runs the test; returns the exit code."""
    state = Path(f"/run/kubectl-gadget-soak-{os.getpid()}")
    samples: dict[str, list[tuple[float, int, int]]] = {"agent": [], "client": []}
    with (
        tempfile.TemporaryDirectory() as folder,
        DemoPods(state) as pods,
        LocalRun(
            Path(folder),
            *("trace", "exec+open+tcp", "-n", "soak", "-o", "json"),
            stdout=subprocess.DEVNULL,
            environment=leaking(Path(folder), leak) if leak else None,
        ) as run,
    ):
        fill(state)
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
    """Prints the table and the JSON. Returns the exit code."""
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
        bad = bad or growth > GROWTH[who] or left > 0
    sys.stdout.write(f"{summary}\n{json.dumps(results)}\n")
    return int(bad)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--leak", type=int, default=0, metavar="KIB", help="a second, in agent and client")
    options = parser.parse_args()
    sys.exit(main(options.seconds, options.leak))
