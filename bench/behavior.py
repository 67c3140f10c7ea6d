"""What `behavior check` costs while a container does what its baseline knows, at 10,000 opens a second.

    sudo .venv/bin/python -m bench.behavior [--rounds 1] [--seconds 20] [--rate 10000] [--json FILE]

A container opens 40 files of its baseline in turn, at this rate and not at all. Reported are the CPU time of the
client, of the agent, and of the BPF programs, in percent of one core, which programs these are, and how much more CPU
time the container takes than after the end of the check, without the kernel's counting.

The programs of this run are not the only ones of the machine, so only those that its agent has open are counted.
Counting takes more time than most programs: what it adds to a program that does nothing is taken off. And the container
of which the baseline is made has to end before, or twice as many files are opened.
"""

import os
import signal
import subprocess
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from bench.overhead import children_of, cpu_ns
from bench.program_counts import counting, counting_ns, program_counts, program_names
from bench.rounds import alternate, arguments, describe_machine, print_machine, print_table, spread, write_json
from kubectl_gadget.demo import DemoPods
from tests.gadget_run import GadgetRun

_PARTS = ("client", "agent", "opener")
_MOST_PROGRAMS = 8
_OPENER = r"""
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(int count, char **words)
{
	long rate = atol(words[1]), done = 0;
	struct timespec begun, now, wait = {.tv_nsec = 1000000};
	char path[64];

	(void)count;
	for (int n = 0; n < 40; n++) {
		snprintf(path, sizeof(path), "/tmp/file%c%c", 'a' + n / 10, 'a' + n % 10);
		close(open(path, O_CREAT | O_WRONLY, 0600));
	}
	clock_gettime(CLOCK_MONOTONIC, &begun);
	for (;;) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		double seconds = now.tv_sec - begun.tv_sec + (now.tv_nsec - begun.tv_nsec) / 1e9;
		while (done < seconds * rate) {
			int n = done++ % 40;

			snprintf(path, sizeof(path), "/tmp/file%c%c", 'a' + n / 10, 'a' + n % 10);
			close(open(path, O_RDONLY));
		}
		nanosleep(&wait, NULL);
	}
}
"""


@dataclass(frozen=True)
class Spent:
    """Nanoseconds at one moment."""

    when: int
    client: int
    agent: int
    opener: int
    programs: dict[int, tuple[int, int]]
    """nanoseconds and runs, by number"""


@dataclass(frozen=True)
class Processes:
    """Whose time is measured."""

    client: int
    agents: list[int]
    opener: int

    def spent(self) -> Spent:
        return Spent(
            time.monotonic_ns(),
            cpu_ns(self.client),
            sum(map(cpu_ns, self.agents)),
            cpu_ns(self.opener),
            program_counts(self.agents),
        )


def by_program(before: Spent, after: Spent, counting: float) -> dict[str, tuple[float, float]]:
    """Percent of one core and runs a second of the programs of each name, without the time that counting took."""
    took, names = after.when - before.when, program_names()
    found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for id, (ns, runs) in after.programs.items():
        earlier = before.programs.get(id, (0, 0))
        ran = runs - earlier[1]
        found[names.get(id, "?")][0] += 100 * (ns - earlier[0] - counting * ran) / took
        found[names.get(id, "?")][1] += 1e9 * ran / took
    return {name: (percent, runs) for name, (percent, runs) in found.items()}


def opener_of(rate: int) -> int:
    """The process that opens files in the container."""
    words = f"/bin/opener\0{rate}\0".encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_bytes() == words:
                return int(path.parent.name)
    raise SystemExit("the container has ended")


def measured(folder: Path, seconds: float, rate: int) -> dict[str, Any]:
    """Percent of one core, by part."""
    source, opener = folder / "opener.c", folder / "opener"
    source.write_text(_OPENER)
    subprocess.run(["gcc", "-O2", "-static", "-o", opener, source], check=True)
    namespace, baseline = f"bench-{os.getpid()}", folder / "baseline.yaml"
    with DemoPods(folder / "pods") as pods:
        (pods.image_root / "bin" / "opener").write_bytes(opener.read_bytes())
        (pods.image_root / "bin" / "opener").chmod(0o755)
        command = {"main": ["/bin/opener", str(rate)]}
        with GadgetRun(folder, "behavior", "save", str(baseline), "-n", namespace, "--local") as run:
            pods.start_pod(namespace, "opener-0", command)
            time.sleep(2)
            run.stop()
        os.kill(opener_of(rate), signal.SIGKILL)
        words = ("behavior", "check", str(baseline), "-n", namespace, "--local", "-o", "json")
        with GadgetRun(folder, *words) as run:
            pods.start_pod(namespace, "opener-1", command)
            time.sleep(2)
            processes = Processes(run.process.pid, children_of(run.process.pid), opener_of(rate))
            before = processes.spent()
            time.sleep(seconds)
            after = processes.spent()
            with counting():
                added = counting_ns()
                counted = processes.spent()
                time.sleep(seconds)
                programs = by_program(counted, processes.spent(), added)
            run.stop()
            rows = len(run.rows())
        untraced = cpu_ns(processes.opener), time.monotonic_ns()
        time.sleep(seconds)
        alone = 100 * (cpu_ns(processes.opener) - untraced[0]) / (time.monotonic_ns() - untraced[1])
    parts = {part: 100 * (getattr(after, part) - getattr(before, part)) / (after.when - before.when) for part in _PARTS}
    return {
        **{part: round(percent, 2) for part, percent in parts.items()},
        "added": round(parts["opener"] - alone, 2),
        "programs": round(sum(percent for percent, _ in programs.values()), 2),
        "counting": round(added),
        "rows": rows,
        "by program": programs,
    }


def print_programs(title: str, rounds: list[dict[str, tuple[float, float]]]) -> None:
    """The programs that take most, medians of the rounds."""
    table = []
    for name in {name for one in rounds for name in one}:
        percent, runs = (median(one.get(name, (0.0, 0.0))[column] for one in rounds) for column in (0, 1))
        if runs:
            table.append((name, f"{percent:.3f}", f"{runs:,.0f}", f"{percent * 1e7 / runs:,.0f}"))
    table.sort(key=lambda row: -float(row[1]))
    print_table(f"{title}: BPF programs", ("", "percent of a core", "runs/s", "ns a run"), table[:_MOST_PROGRAMS])


def main() -> None:
    """Measures and prints."""
    parser = arguments(__doc__, 1)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rate", type=int, default=10_000)
    options = parser.parse_args()
    machine = describe_machine()
    print_machine()

    def run(rate: int) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="bench-behavior-") as folder:
            return measured(Path(folder), options.seconds, rate)

    results = alternate({f"{rate:,} opens/s": partial(run, rate) for rate in (0, options.rate)}, options.rounds)
    parts = ("client", "agent", "programs", "opener", "added", "counting", "rows")
    rows = [
        [name, *(spread([one[part] for one in found]).text(2) for part in parts)] for name, found in results.items()
    ]
    print_table("Percent of one core; ns that counting adds to a run, taken off; rows", ("", *parts), rows)
    for name, found in results.items():
        print_programs(name, [one["by program"] for one in found])
    write_json(options.json, machine, results)


if __name__ == "__main__":
    main()
