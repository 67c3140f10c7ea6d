"""What `behavior check` costs while a container does what its baseline knows, at 10,000 opens a second.

    sudo .venv/bin/python -m bench.behavior [--seconds 20] [--rate 10000] [--json FILE]

A container opens 40 files of its baseline in turn, at this rate. Reported are the CPU time of the client, of the agent,
and of the BPF programs (bpf_stats_enabled), in percent of one core, and what was judged row by row. The trap: the
programs of this run are not the only ones of the machine, so only those that began with the run are counted.
"""

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path

from bench.rounds import describe_machine, print_machine, write_json
from kubectl_gadget.demo import DemoPods
from tests.gadget_run import GadgetRun

_STATS = Path("/proc/sys/kernel/bpf_stats_enabled")
_TICKS = os.sysconf("SC_CLK_TCK")
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
	mkdir:
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
""".replace("\tmkdir:\n", "")


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, in seconds (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def children(pid: int) -> list[int]:
    """Its child processes."""
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def program_seconds(pids: list[int]) -> float:
    """The time that the BPF programs of these processes have run, in seconds."""
    found: dict[str, int] = {}
    for pid in pids:
        for info in Path(f"/proc/{pid}/fdinfo").iterdir():
            try:
                values = dict(line.split(":\t", 1) for line in info.read_text().splitlines() if ":\t" in line)
            except OSError:
                continue
            if "run_time_ns" in values:
                found[values["prog_id"]] = int(values["run_time_ns"])
    return sum(found.values()) / 1e9


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
            client, agents = run.process.pid, children(run.process.pid)
            before = cpu_seconds(client), sum(map(cpu_seconds, agents)), program_seconds(agents)
            began = time.monotonic()
            time.sleep(seconds)
            took = time.monotonic() - began
            after = cpu_seconds(client), sum(map(cpu_seconds, agents)), program_seconds(agents)
            run.stop()
            rows = len(run.rows())
    percents = [round(100 * (late - early) / took, 2) for early, late in zip(before, after, strict=True)]
    return dict(zip(("client", "agent", "programs"), percents, strict=True)) | {"rows": rows}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    before = _STATS.read_text()
    with tempfile.TemporaryDirectory(prefix="bench-behavior-") as folder:
        _STATS.write_text("1")
        try:
            found = measured(Path(folder), asked.seconds, asked.rate)
        finally:
            _STATS.write_text(before)
    print_machine()
    print(
        f"percent of one core at {asked.rate:,} opens/s: {', '.join(f'{name} {each}' for name, each in found.items())}"
    )
    write_json(asked.json, describe_machine(), found)


if __name__ == "__main__":
    main()
