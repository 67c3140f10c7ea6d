"""What tracing opens costs the traced program and the node, beside libbpf-tools' opensnoop, in one run.

    sudo .venv/bin/python bench/open.py [--opens 1000000] [--rounds 5] [--json FILE]

A C loop opens one file at full speed on one CPU; the tracers get the others. The variants take turns, so that a drift
of the machine hits all of them. The trap: `opensnoop` prints in the process that reads, so its CPU time includes
printing; ours is given for the agent alone, since the client runs on the user's machine.
"""

import argparse
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).parent
COMM = "open_loop"
ATTACH_SECONDS = 30.0


@dataclass
class Result:
    """One run of the loop."""

    ns_per_open: float
    tracer_cpu_ns_per_event: float | None = None
    delivered: int | None = None
    tracer_rss_mb: float | None = None


def build(directory: Path) -> Path:
    program = directory / COMM
    subprocess.run(["cc", "-O2", "-o", program, HERE / "open_loop.c"], check=True)
    return program


def loop(program: Path, opens: int) -> float:
    last_cpu = (os.cpu_count() or 1) - 1
    return float(subprocess.run([program, str(opens), str(last_cpu)], check=True, capture_output=True).stdout)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(match[1]) / 1024 if match else 0.0


def pids_of(pattern: str) -> list[int]:
    found = subprocess.run(["pgrep", "-f", pattern], check=False, capture_output=True, text=True).stdout
    return [int(pid) for pid in found.split()]


@contextmanager
def running(command: list[str], output: Path, errors: Path) -> Iterator[subprocess.Popen[bytes]]:
    others = set(range(max(1, (os.cpu_count() or 1) - 1)))
    with output.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
        os.sched_setaffinity(process.pid, others)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(120)


def nothing(program: Path, opens: int, _: Path) -> Result:
    return Result(loop(program, opens))


def ours(program: Path, opens: int, directory: Path) -> Result:
    output, errors = directory / "ours.jsonl", directory / "ours.err"
    command = [sys.executable, "-m", "kubectl_gadget.cli.main", "trace", "open", "--local", "--host", "-o", "json"]
    with running([*command, "--comm", COMM], output, errors):
        wait_for(lambda: "tracing" in errors.read_text(), f"the trace did not start: {errors.read_text()}")
        (agent,) = pids_of("kubectl_gadget.agent session")
        before = cpu_seconds(agent)
        took = loop(program, opens)
        settle(output)
        cpu, memory = cpu_seconds(agent) - before, rss_mb(agent)
    return Result(took, cpu * 1e9 / opens, lines(output, b"/etc/hostname"), memory)


def opensnoop(program: Path, opens: int, directory: Path) -> Result:
    output, errors = directory / "opensnoop.txt", directory / "opensnoop.err"
    tool = shutil.which("opensnoop-libbpf") or shutil.which("opensnoop")
    assert tool is not None
    with running([tool, "-n", COMM], output, errors) as process:
        wait_for(lambda: b"PID" in output.read_bytes() or cpu_seconds(process.pid) > 0, "opensnoop did not start")
        time.sleep(2)
        before = cpu_seconds(process.pid)
        took = loop(program, opens)
        settle(output)
        cpu, memory = cpu_seconds(process.pid) - before, rss_mb(process.pid)
    return Result(took, cpu * 1e9 / opens, lines(output, b"/etc/hostname"), memory)


def wait_for(condition: Callable[[], bool], failure: str) -> None:
    deadline = time.monotonic() + ATTACH_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(failure)
        time.sleep(0.05)


def settle(output: Path) -> None:
    """Until the output has not grown for a second."""
    size = -1
    while (now := output.stat().st_size) != size:
        size = now
        time.sleep(1)


def lines(output: Path, needle: bytes) -> int:
    with output.open("rb") as file:
        return sum(needle in line for line in file)


def median(results: list[Result], field: str) -> float:
    return statistics.median(getattr(result, field) for result in results)


def report(results: dict[str, list[Result]], opens: int) -> None:
    base = median(results["nothing"], "ns_per_open")
    print(f"{platform.system()} {platform.release()}, {os.cpu_count()} CPUs, {opens:,} opens, medians (min to max)")
    for name, rounds in results.items():
        times = [result.ns_per_open for result in rounds]
        text = f"  {name:10} {statistics.median(times):8.0f} ns per open+close ({min(times):.0f} to {max(times):.0f})"
        if name != "nothing":
            text += (
                f", adds {statistics.median(times) - base:6.0f} ns; CPU per event "
                f"{median(rounds, 'tracer_cpu_ns_per_event'):6.0f} ns; delivered "
                f"{median(rounds, 'delivered') / opens:7.2%}; {median(rounds, 'tracer_rss_mb'):.0f} MB"
            )
        print(text)
    if "opensnoop" in results:
        added = {name: median(results[name], "ns_per_open") - base for name in ("ours", "opensnoop")}
        cpu = {name: median(results[name], "tracer_cpu_ns_per_event") for name in ("ours", "opensnoop")}
        print(f"  ours adds 1/{added['opensnoop'] / max(added['ours'], 1):.1f} of what opensnoop adds,")
        print(f"  and its agent uses 1/{cpu['opensnoop'] / max(cpu['ours'], 1):.1f} of opensnoop's CPU per event")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--opens", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    variants = {"nothing": nothing, "ours": ours}
    if shutil.which("opensnoop-libbpf") or shutil.which("opensnoop"):
        variants["opensnoop"] = opensnoop
    results: dict[str, list[Result]] = {name: [] for name in variants}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        program = build(directory)
        for _ in range(arguments.rounds):
            for variant, measure in variants.items():
                results[variant].append(measure(program, arguments.opens, directory))
    report(results, arguments.opens)
    if arguments.json:
        arguments.json.write_text(json.dumps({k: [asdict(r) for r in v] for k, v in results.items()}, indent=1))


if __name__ == "__main__":
    main()
