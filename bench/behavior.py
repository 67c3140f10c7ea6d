"""What `behavior check` costs while a container does what its baseline knows, at 10,000 opens a second.

    sudo .venv/bin/python -m bench.behavior [--rounds 1] [--seconds 20] [--rate 10000] [--json FILE]

A container opens 40 files of its baseline in turn, at this rate and not at all. Reported are the CPU time of the
client, of the agent, and of the BPF programs, in percent of one core, and what was judged row by row. The trap: the
programs of this run are not the only ones of the machine, so only those that its agent has open are counted.
"""

import os
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path

from bench.overhead import children_of, cpu_ns
from bench.program_counts import counting, program_counts
from bench.rounds import alternate, arguments, describe_machine, print_machine, print_table, spread, write_json
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
    parser = arguments(__doc__, 1)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rate", type=int, default=10_000)
    options = parser.parse_args()
    machine = describe_machine()
    print_machine()

    def run(rate: int) -> dict[str, float]:
        with tempfile.TemporaryDirectory(prefix="bench-behavior-") as folder:
            return measured(Path(folder), options.seconds, rate)

    with counting():
        results = alternate({f"{rate:,} opens/s": partial(run, rate) for rate in (0, options.rate)}, options.rounds)
    parts = ("client", "agent", "programs", "rows")
    rows = [
        [name, *(spread([one[part] for one in found]).text(2) for part in parts)] for name, found in results.items()
    ]
    print_table("Percent of one core, and rows", ("", *parts), rows)
    write_json(options.json, machine, results)


if __name__ == "__main__":
    main()
