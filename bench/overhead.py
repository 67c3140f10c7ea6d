"""The cost of tracing for the traced program and the node: a loop at full speed, with no tracer, ours, and others.

The loop runs on the last CPU, tracers on the others. What a tracer adds is the difference to the same loop right before
and after it, since the machine's speed changes from minute to minute. Long units are timed one by one, with real-time
priority, so that other work does not get between, and their median counts. Other tools print in the process that reads,
so their CPU time includes printing; ours is that of the agent alone, since the client runs on the user's machine. And a
tool does not report when it has attached, so its BPF links are watched.
"""

import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.rounds import (
    NotMeasurableError,
    Spread,
    alternate_possible,
    arguments,
    describe_machine,
    print_machine,
    print_table,
    spread,
    write_json,
)

LOOPS = Path(__file__).parent / "loops"
NOTHING = "nothing traced"
_ATTACH_SECONDS = 600.0
"""Long, because bcc compiles, and in the virtual machine every instruction is emulated."""
_QUIET_SECONDS = 1.0
_SETTLE_SECONDS = 90.0
_EMULATED_SHARE = 40
"""In the virtual machine only one in this many is done: an instruction takes that much longer, and attaching takes most
of the time anyway."""


@dataclass(frozen=True)
class Load:
    """One kind of operation, done at full speed."""

    loop: str
    """loops/NAME.c, also the name of the process"""
    unit: str
    count: int
    mode: tuple[str, ...] = ()
    """words before the count"""
    executed: str = ""
    """loops/NAME.c, a program without libraries that the loop executes, beside it"""
    real_time: bool = False
    """for a loop that times each unit: no other process runs on its CPU meanwhile"""


@dataclass(frozen=True)
class Tracer:
    """A tracer, and how its rows are counted."""

    name: str
    command: tuple[str, ...]
    row: bytes
    """regular expression that matches the lines about the loop"""
    rows_per_unit: float = 1.0
    """rows per unit of a tracer that loses nothing; 0 if it does not print one row per event"""
    ours: bool = False
    ready_seconds: float = 0.0
    """seconds after which it has attached, if it has no BPF link to watch"""


@dataclass(frozen=True)
class Result:
    """One run of the loop."""

    ns: float
    cpu_ns: float
    """CPU time of the loop itself, without other processes"""
    unit_ns: float
    """the median of all units, or, where a unit is too short to be timed, the same CPU time"""
    tracer_cpu_ns: float | None = None
    """per unit"""
    delivered: float | None = None
    """share of rows that were printed; 1.0: all"""
    tracer_mb: float | None = None
    tracer_share: float | None = None
    """of one CPU"""
    without_ns: float = 0.0
    """`unit_ns` without the tracer, right before and after it"""

    @property
    def added_ns(self) -> float:
        """What the tracer adds to a unit."""
        return self.unit_ns - self.without_ns


def our_tracer(name: str, words: Sequence[str], row: bytes, rows_per_unit: float = 1.0) -> Tracer:
    """`kubectl gadget WORDS` on this machine."""
    command = (sys.executable, "-m", "kubectl_gadget.cli.main", *words, "--local", "--host", "-o", "json")
    return Tracer(f"kubectl gadget {name}", command, row, rows_per_unit, ours=True)


def peer(tool: str, flags: Sequence[str], row: bytes, rows_per_unit: float = 1.0) -> list[Tracer]:
    """The tools with this name from libbpf-tools and bcc, as packaged by Debian; bcc's only if there are kernel
    headers."""
    found = []
    for path, of in ((f"{tool}-libbpf", "libbpf-tools"), (f"{tool}-bpfcc", "bcc")):
        has_headers = os.environ.get("BCC_KERNEL_SOURCE") or Path(f"/lib/modules/{os.uname().release}/build").exists()
        if shutil.which(path) and (of != "bcc" or has_headers):
            found.append(Tracer(f"{of}' {tool}" if of.endswith("s") else f"{of}'s {tool}", (path, *flags), row))
    return [Tracer(one.name, one.command, row, rows_per_unit) for one in found]


def perf(flags: Sequence[str]) -> list[Tracer]:
    """perf record, if it is installed. Its output is dropped."""
    command = ("perf", "record", *flags, "-o", "/dev/null")
    return [Tracer("perf record", command, b"", 0, ready_seconds=2.0)] if shutil.which("perf") else []


def main(doc: str | None, loads: dict[str, tuple[Load, Sequence[Tracer]]], rounds: int = 5) -> None:
    """A benchmark's command line: each load with its tracers."""
    parser = arguments(doc, rounds)
    parser.add_argument("--count", type=int, help="iterations of the loop (default: by load)")
    parser.add_argument("--only", action="append", metavar="TEXT", help="only tracers whose name contains this text")
    parser.add_argument("--vm", action="store_true", help="in a virtual machine with Debian's kernel and its headers")
    parser.add_argument("--spinners", type=int, default=0, help="programs that keep the CPUs busy meanwhile")
    parser.add_argument("--emulated", action="store_true", help="a fortieth of the loop's iterations, as with --vm")
    options = parser.parse_args()
    if options.vm:
        from bench.vm import again

        again(options)
        return
    if os.geteuid() != 0:
        raise SystemExit("tracing needs root. try: sudo .venv/bin/python -m bench.…")
    machine, results = describe_machine(), {}
    print_machine()
    with beside(SPINNER, options.spinners):
        for title, (load, tracers) in loads.items():
            chosen, count = _chosen(tracers, options), options.count or load.count
            count //= _EMULATED_SHARE if options.emulated and not options.count else 1
            results[title], failed = measure(load, chosen, options.rounds, count)
            _print(f"{title}: {count:,} × {load.unit}", load, results[title], chosen)
            for name, why in failed.items():
                rest = "ended early" if name in results[title] else "is left out"
                print(f"{name} {rest}, it does not work here: {why}")
    write_json(options.json, machine, results)


SPINNER = (sys.executable, "-I", "-S", "-c", "while True: pass")


@contextmanager
def beside(command: Sequence[str], count: int) -> Iterator[None]:
    """So many of a program that keeps the CPUs busy, with its children."""
    programs = [subprocess.Popen(command, start_new_session=True) for _ in range(count)]
    try:
        yield
    finally:
        for program in programs:
            os.killpg(program.pid, signal.SIGKILL)
            program.wait()


def _chosen(tracers: Sequence[Tracer], options: Namespace) -> list[Tracer]:
    return [one for one in tracers if not options.only or any(text in one.name for text in options.only)]


def measure(
    load: Load, tracers: Sequence[Tracer], rounds: int, count: int
) -> tuple[dict[str, list[Result]], dict[str, str]]:
    """The loop without a tracer and with each, in turns; and why a tracer does not work here."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        loop = Loop(load, count, directory)
        loop.run()  # warms up caches
        runs: dict[str, Callable[[], Result]] = {NOTHING: partial(_untraced, loop)}
        runs |= {tracer.name: partial(_traced, loop, tracer, directory) for tracer in tracers}
        return alternate_possible(runs, rounds)


class Loop:
    """The compiled program of a load."""

    def __init__(self, load: Load, count: int, directory: Path) -> None:
        self.count = count
        program = directory / load.loop
        compile_loop(load.loop, directory)
        if load.executed:
            compile_loop(load.executed, directory, "-static", "-nostdlib")
        priority = ("chrt", "--fifo", "1") if load.real_time else ()
        self._command = [*priority, str(program), *load.mode, str(count), str((os.cpu_count() or 1) - 1)]

    def run(self) -> tuple[float, float, float]:
        """Nanoseconds per unit: elapsed time, CPU time of the loop, and `Result.unit_ns`."""
        ns, cpu, unit = subprocess.run(self._command, check=True, capture_output=True).stdout.split()
        return float(ns), float(cpu), float(unit)


def compile_loop(name: str, directory: Path, *flags: str) -> None:
    """Compiles loops/NAME.c to a program of that name."""
    subprocess.run(["cc", "-O2", *flags, "-o", directory / name, LOOPS / f"{name}.c"], check=True)


@contextmanager
def running(tracer: Tracer, directory: Path) -> Iterator[tuple[int, Path]]:
    """The process whose CPU time and memory count, and the file of its rows, which is complete when the block has
    ended."""
    output, errors = directory / "output", directory / "errors"
    others = set(range(max(1, (os.cpu_count() or 1) - 1)))
    with output.open("wb") as out, errors.open("wb") as err:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"} if not tracer.ours else None
        process = subprocess.Popen(tracer.command, stdout=out, stderr=err, env=environment)
        os.sched_setaffinity(process.pid, others)
        try:
            _until_attached(tracer, process, output, errors)
            yield (children_of(process.pid)[0] if tracer.ours else process.pid), output
        finally:
            end(process)


def until_attached(process: subprocess.Popen[bytes]) -> str:
    """Reads what our client says on standard error until it has attached, and returns it. Raises
    NotMeasurableError."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line.decode(errors="replace")
        if line.endswith(b" to stop\n"):
            return said
    raise NotMeasurableError(f"the trace did not start: {said or 'it printed nothing'}")


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a tracer as Ctrl-C does, or kills it after a minute."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _until_attached(tracer: Tracer, process: subprocess.Popen[bytes], output: Path, errors: Path) -> None:
    deadline = time.monotonic() + _ATTACH_SECONDS
    links = 0
    begun = since = time.monotonic()
    while True:
        if process.poll() is not None or time.monotonic() > deadline:
            raise NotMeasurableError(
                (errors.read_text(errors="replace").strip() or "it printed nothing").splitlines()[-1]
            )
        if tracer.ours:
            if re.search(" to stop$", errors.read_text(errors="replace"), re.M):
                return
        elif tracer.ready_seconds:
            if time.monotonic() > begun + tracer.ready_seconds:
                return
        else:
            if output.stat().st_size:
                return
            if (now := _links(process.pid)) != links:
                links, since = now, time.monotonic()
            elif links and time.monotonic() > since + _QUIET_SECONDS:
                return
        time.sleep(0.05)


def _links(pid: int) -> int:
    found = 0
    for info in Path(f"/proc/{pid}/fdinfo").glob("*"):
        try:
            found += "link_id:" in info.read_text()
        except OSError:
            continue  # closed in the meantime
    return found


def children_of(pid: int) -> list[int]:
    """Its child processes."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _untraced(loop: Loop) -> Result:
    took = loop.run()
    return Result(*took, without_ns=took[-1])


def _traced(loop: Loop, tracer: Tracer, directory: Path) -> Result:
    without = [loop.run()[-1]]
    with running(tracer, directory) as (pid, output):
        before, began = cpu_ns(pid), time.monotonic()
        took = loop.run()
        settle(output)
        cpu, memory = cpu_ns(pid) - before, peak_mb(pid)
        share = cpu / 1e9 / (time.monotonic() - began)
    without.append(loop.run()[-1])
    delivered = None
    if tracer.rows_per_unit:
        with output.open("rb") as file:
            delivered = sum(bool(re.search(tracer.row, line)) for line in file) / tracer.rows_per_unit / loop.count
    return Result(*took, cpu / loop.count, delivered, memory, share, statistics.mean(without))


def cpu_ns(pid: int) -> int:
    """CPU time of a process in ns."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads)


def peak_mb(pid: int) -> float:
    """Peak resident memory in MB."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(match[1]) / 1024 if match else 0.0


def settle(output: Path) -> None:
    """Waits until the output has not grown for a second. A tracer that also prints what other programs do may never
    stop on a busy machine, so the wait is limited."""
    size, deadline = -1, time.monotonic() + _SETTLE_SECONDS
    while (now := output.stat().st_size if output.exists() else 0) != size and time.monotonic() < deadline:
        size = now
        time.sleep(1)


def _print(title: str, load: Load, results: dict[str, list[Result]], tracers: Sequence[Tracer]) -> None:
    def found(name: str, field: str) -> Spread | None:
        values = [getattr(result, field) for result in results[name]]
        return None if None in values or not values else spread(values)

    def added_by(name: str) -> float:
        return statistics.median(result.added_ns for result in results[name])

    ours = next((one.name for one in tracers if one.ours and one.name in results), None)
    reference = added_by(ours) if ours else 0.0
    rows: list[list[object]] = []
    for name in results:
        passed, used, unit = found(name, "ns"), found(name, "cpu_ns"), found(name, "unit_ns")
        assert passed is not None
        assert used is not None
        assert unit is not None
        added = added_by(name)
        cpu, delivered, memory = (found(name, field) for field in ("tracer_cpu_ns", "delivered", "tracer_mb"))
        is_ours = any(one.ours for one in tracers if one.name == name)
        rows.append(
            [
                name,
                passed.text(),
                used.text(),
                unit.text(),
                "" if name == NOTHING else f"{added:,.0f}",
                "" if name in (NOTHING, ours) or reference <= 0 else f"{added / reference:.1f}",
                "" if cpu is None else f"{cpu.median:,.0f}" + (" (agent)" if is_ours else ""),
                "" if delivered is None else f"{delivered.median:.2%}",
                "" if memory is None else f"{memory.median:.0f}",
            ]
        )
    headers = (f"ns per {load.unit}", "of CPU", "undisturbed", "added", "× ours", "tracer's CPU ns", "delivered", "MB")
    print_table(title, ("median (min to max)", *headers), rows)
