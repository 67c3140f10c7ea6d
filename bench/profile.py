"""What profiling all CPUs 99 times a second costs a program, compared with profile of libbpf-tools, of bcc, and perf
record; and what it takes on a busy machine.

    sudo .venv/bin/python -m bench.profile [--rounds 5] [--count 5000] [--only TEXT] [--vm] [--json FILE]
    sudo .venv/bin/python -m bench.profile --busy SECONDS [--reference FOLDER] [--rounds 3] [--json FILE]

The program only calculates, so that nothing but samples interrupts it. With --busy, programs of fifteen kinds start and
end meanwhile (mixed_programs.py), and the CPU time of each profiler is shown, its end included. FOLDER has another
version of this project, built; it runs in turns. The cost of a sample is far below the noise of one run; the others
resolve symbols at their end, or in another program (perf); and a profiler that names less takes less.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench import mixed_programs
from bench.overhead import Load, children_of, cpu_ns, main, our_tracer, peak_mb, peer, perf
from bench.rounds import alternate, arguments, describe_machine, print_machine, print_table, spread, write_json

HERE = Path(__file__).parents[1]
LOAD = Load("spin_loop", "round", 5_000)
TRACERS = [
    our_tracer("profile cpu", ("profile", "cpu"), b"", 0),
    our_tracer("profile cpu 999 Hz", ("profile", "cpu", "--frequency", "999"), b"", 0),
    *peer("profile", ("-F", "99"), b"", 0),
    *perf(("-F", "99", "-a", "-g")),
]
_OTHERS = {one.name: list(one.command) for one in peer("profile", ("-F", "99", "-f"), b"", 0)}


def ours(folder: Path, seconds: float) -> dict[str, float]:
    """`profile cpu` of the version in `folder`, from attached to STOP."""
    command = [
        sys.executable,
        "-m",
        "kubectl_gadget.cli.main",
        "profile",
        "cpu",
        "--local",
        "--host",
        "-A",
        "-o",
        "json",
    ]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    with tempfile.TemporaryFile("w+") as rows:
        client = subprocess.Popen(command, cwd=folder, env=environment, stdout=rows, stderr=subprocess.PIPE)
        try:
            assert client.stderr is not None
            while b"profile cpu on" not in (line := client.stderr.readline()):
                if not line:
                    raise SystemExit(f"{folder}: profile cpu did not start")
            (agent,) = children_of(client.pid)
            before, began = cpu_ns(agent), time.monotonic()
            time.sleep(seconds)
            used, passed, memory = cpu_ns(agent) - before, time.monotonic() - began, peak_mb(agent)
            client.send_signal(signal.SIGINT)
            client.stderr.read()
        finally:
            client.kill()
            client.wait()
        rows.seek(0)
        return {"cpu_s": used / 1e9, "seconds": passed, "memory_mb": memory, **_named(map(json.loads, rows))}


def _named(rows: "map[dict[str, object]]") -> dict[str, float]:
    """Samples, and the shares of those with a user stack whose innermost function is known, or whose process is."""
    found: Counter[str] = Counter()
    for row in rows:
        samples, stack = row["samples"], row["user_stack"]
        assert isinstance(samples, int)
        assert isinstance(stack, list)
        found["samples"] += samples
        if stack:
            found["stacks"] += samples
            found["named"] += 0 if stack[0].startswith("[") else samples
            found["ended"] += samples if "process ended" in stack[0] else 0
    stacks = max(1, found["stacks"])
    return {
        "samples": float(found["samples"]),
        "named": found["named"] / stacks,
        "ended": found["ended"] / stacks,
    }


def other(command: Sequence[str], seconds: float) -> dict[str, float]:
    """Another profiler, for so many seconds; its end, when it names what it saw, is part of its CPU time."""
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGINT)
        passed = time.monotonic() - began
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
        output.seek(0)
        counts = [int(found[1]) for line in output if (found := re.search(r" (\d+)$", line))]
    if not counts:
        raise SystemExit(f"{command[0]} found nothing")
    return {
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "seconds": passed,
        "memory_mb": usage.ru_maxrss / 1024,
        "samples": float(sum(counts)),
    }


def perf_record_and_report(seconds: float) -> dict[str, float]:
    """perf record, and perf report of what it recorded."""
    with tempfile.TemporaryDirectory() as folder:
        data = f"{folder}/perf.data"
        record = ["perf", "record", "-F", "99", "-a", "-g", "-o", data]
        found = {"cpu_s": 0.0, "memory_mb": 0.0}
        for command in (record, ["perf", "report", "-i", data, "--stdio", "-g", "folded"]):
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                if command is record:
                    time.sleep(seconds)
                    os.kill(process.pid, signal.SIGINT)
                _, _, usage = os.wait4(process.pid, 0)
                process.returncode = 0
            found["cpu_s"] += usage.ru_utime + usage.ru_stime
            found["memory_mb"] = max(found["memory_mb"], usage.ru_maxrss / 1024)
        return found | {"seconds": seconds}


def busy(seconds: float, reference: Path | None, rounds: int, only: Sequence[str]) -> dict[str, list[dict[str, float]]]:
    """Prints what each profiler takes beside the mixed programs."""
    variants: dict[str, Callable[[], dict[str, float]]] = {"profile cpu": partial(ours, HERE, seconds)}
    if reference:
        variants["profile cpu, reference"] = partial(ours, reference, seconds)
    variants |= {name: partial(other, words, seconds) for name, words in _OTHERS.items()}
    if shutil.which("perf"):
        variants["perf record and report"] = partial(perf_record_and_report, seconds)
    variants = {name: run for name, run in variants.items() if not only or any(text in name for text in only)}
    with mixed_programs.mixed_programs() as folder:
        results = alternate(variants, rounds)
        print(f"load {os.getloadavg()[0]:.1f}, programs that ended: {sum(mixed_programs.rounds(folder).values())}")
    cpus = os.cpu_count() or 1
    rows = [
        [
            name,
            spread([100 * one["cpu_s"] / one["seconds"] / cpus for one in found]).text(2),
            _text(found, "samples"),
            spread([1e6 * one["cpu_s"] / one["samples"] for one in found]).text() if "samples" in found[0] else "",
            _text(found, "named", 100),
            _text(found, "ended", 100),
            _text(found, "memory_mb"),
        ]
        for name, found in results.items()
    ]
    headers = ("", "CPU, % of the machine", "samples", "µs per sample", "named, %", "ended before, %", "MB")
    print_table(f"Beside programs of fifteen kinds, {seconds:g} s each", headers, rows)
    return results


def _text(found: Sequence[dict[str, float]], field: str, factor: float = 1.0) -> str:
    return spread([one[field] for one in found]).text(0, factor) if field in found[0] else ""


if __name__ == "__main__":
    if "--busy" in sys.argv:
        parser = arguments(__doc__, 3)
        parser.add_argument("--busy", type=float, required=True, metavar="SECONDS", help="of each profiler")
        parser.add_argument("--reference", type=Path, metavar="FOLDER", help="of another version")
        parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="profilers with this name")
        options = parser.parse_args()
        print_machine()
        machine = describe_machine()
        write_json(options.json, machine, busy(options.busy, options.reference, options.rounds, options.only))
    else:
        main(__doc__, {"profile": (LOAD, TRACERS)})
