"""What `behavior check` costs while a container does what its baseline knows, at 10,000 opens a second.

    sudo .venv/bin/python -m bench.behavior [--seconds 20] [--rate 10000] [--json FILE]

A container opens 40 files of its baseline in turn, at this rate. Reported are the CPU time of the client, of the agent,
and of the BPF programs, in percent of one core, and what was judged row by row. The trap: the programs of this run are
not the only ones of the machine, so only those that its agent has open are counted.
"""

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path

from bench.overhead import children_of, cpu_ns
from bench.program_counts import counting, program_counts
from bench.rounds import describe_machine, end_with_children, print_machine, write_json
from kubectl_gadget.demo import DemoPods
from tests.gadget_run import GadgetRun

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


def spent(client: int, agents: list[int]) -> tuple[float, float, float]:
    """Nanoseconds that the client, the agents and their BPF programs have run."""
    programs = sum(ns for ns, _ in program_counts(agents).values())
    return cpu_ns(client), sum(map(cpu_ns, agents)), programs


def measured(folder: Path, seconds: float, rate: int) -> dict[str, float]:
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
        words = ("behavior", "check", str(baseline), "-n", namespace, "--local", "-o", "json")
        with GadgetRun(folder, *words) as run:
            pods.start_pod(namespace, "opener-1", command)
            time.sleep(2)
            client, agents = run.process.pid, children_of(run.process.pid)
            before = spent(client, agents)
            began = time.monotonic()
            time.sleep(seconds)
            took = time.monotonic() - began
            after = spent(client, agents)
            run.stop()
            rows = len(run.rows())
    percents = [round(100 * (late - early) / took / 1e9, 2) for early, late in zip(before, after, strict=True)]
    return dict(zip(("client", "agent", "programs"), percents, strict=True)) | {"rows": rows}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    end_with_children()
    with tempfile.TemporaryDirectory(prefix="bench-behavior-") as folder, counting():
        found = measured(Path(folder), asked.seconds, asked.rate)
    print_machine()
    print(
        f"percent of one core at {asked.rate:,} opens/s: {', '.join(f'{name} {each}' for name, each in found.items())}"
    )
    write_json(asked.json, describe_machine(), found)


if __name__ == "__main__":
    main()
