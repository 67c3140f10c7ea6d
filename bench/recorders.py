"""What it costs to record events of this machine to a file, beside tools that do the same.

    sudo .venv/bin/python -m bench.recorders [--rounds 3] [--opens 200000] [--packets 200000] [--json FILE]

A loop opens a file, or sends datagrams of 1,000 bytes to itself over loopback, at full speed on the last CPU; the
recorders run on the others. Reported are the CPU time of the loop, the CPU time of the recorder with its children while
the loop runs and until its file has stopped growing, the size of the file, and what it has of the loop. tcpdump and
perf know no container, process (tcpdump), path or result (perf record of one tracepoint), so their events say less; and
the file of perf holds what everything else on the machine opened, too.
"""

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.overhead import Load, Loop, children_of, cpu_ns, end, settle
from bench.rounds import alternate, arguments, describe_machine, print_machine, print_table, spread, write_json
from tests.gadget_run import GADGET

_WAIT_SECONDS = 60
_OURS = ("--local", "--host", "-o", "name", "--record")


@dataclass(frozen=True)
class Recorder:
    """A command that records to a file."""

    name: str
    command: tuple[str, ...]
    """the name of the file is the last word"""
    started: str
    """regular expression that its standard error matches when it has attached; empty: after two seconds"""
    count: Callable[[Path, str], int]
    """how many of the loop's events the file holds, from its path and the text of standard error"""


@dataclass(frozen=True)
class Result:
    loop_ns: float
    """CPU time of the loop per event"""
    recorder_ns: float
    """per event of the loop"""
    bytes: float
    """per event that was kept"""
    kept: float
    """share of the loop's events; the packets of a datagram are one event"""


def _replayed(words: tuple[str, ...], path: Path, _: str) -> int:
    command = [*GADGET, "replay", str(path), *words, "-o", "jsonpath={.comm}"]
    return subprocess.run(command, check=True, capture_output=True).stdout.count(b"\n")


def _captured(_: Path, said: str) -> int:
    """Packets that tcpdump reports. It sees each of the loopback device once."""
    found = re.search(r"^(\d+) packets? captured", said, re.M)
    return int(found[1]) if found else 0


def _of_perf(path: Path, _: str) -> int:
    command = ["perf", "script", "-F", "comm", "--comms", "open_loop", "-i", str(path)]
    return subprocess.run(command, check=True, capture_output=True).stdout.count(b"\n")


def _ours(name: str, words: tuple[str, ...], filters: tuple[str, ...]) -> Recorder:
    return Recorder(
        f"kubectl gadget {name} --record",
        (*GADGET, *words, *_OURS),
        "press Ctrl-C to stop",
        partial(_replayed, filters),
    )


OPENS = [
    _ours("trace open", ("trace", "open", "--comm", "open_loop"), ("--filter", 'comm == "open_loop"')),
    Recorder("perf record", ("perf", "record", "-q", "-a", "-e", "syscalls:sys_exit_open*", "-o"), "", _of_perf),
]
PACKETS = [
    _ours("tcpdump", ("tcpdump", "--comm", "udp_loop"), ("--filter", 'direction == "out"')),
    Recorder("tcpdump -w", ("tcpdump", "-i", "lo", "-w"), "listening on", _captured),
]


def _started(recorder: Recorder, process: subprocess.Popen[bytes], errors: Path) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    if not recorder.started:
        time.sleep(2)
    while recorder.started and not re.search(recorder.started, errors.read_text(errors="replace")):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{recorder.name} did not start: {errors.read_text(errors='replace')}")
        time.sleep(0.05)


def _spent(pid: int) -> int:
    return cpu_ns(pid) + sum(map(cpu_ns, children_of(pid)))


def recorded(recorder: Recorder, loop: Loop) -> Result:
    """One run of the loop beside one recorder."""
    with tempfile.TemporaryDirectory(prefix="bench-recorders-") as name:
        path, errors = Path(name) / "recording", Path(name) / "errors"
        with errors.open("wb") as err, open(os.devnull, "wb") as nothing:
            process = subprocess.Popen([*recorder.command, str(path)], stdout=nothing, stderr=err)
        os.sched_setaffinity(process.pid, set(range(max(1, (os.cpu_count() or 1) - 1))))
        try:
            _started(recorder, process, errors)
            before = _spent(process.pid)
            _, loop_ns, _ = loop.run()
            settle(path)
            spent = _spent(process.pid) - before
        finally:
            end(process)
        kept = recorder.count(path, errors.read_text(errors="replace"))
        return Result(loop_ns, spent / loop.count, path.stat().st_size / max(1, kept), kept / loop.count)


def measured(name: str, recorders: list[Recorder], count: int, rounds: int) -> dict[str, list[Result]]:
    """Each recorder that is installed, in turns with none, by name."""
    with tempfile.TemporaryDirectory(prefix="bench-loop-") as folder:
        loop = Loop(Load(name, "event", count), count, Path(folder))
        runs: dict[str, Callable[[], Result]] = {"nothing recorded": lambda: Result(loop.run()[1], 0, 0, 0)}
        for recorder in recorders:
            if shutil.which(recorder.command[0]):
                runs[recorder.name] = partial(recorded, recorder, loop)
            else:
                print(f"{recorder.name} is left out: {recorder.command[0]} is not installed")
        return alternate(runs, rounds)


def _print(title: str, results: dict[str, list[Result]]) -> None:
    rows = []
    for name, found in results.items():
        loop = spread([one.loop_ns for one in found]).text()
        parts = [spread([getattr(one, part) for one in found]) for part in ("recorder_ns", "bytes", "kept")]
        texts = (parts[0].text(), parts[1].text(1), parts[2].text(1, 100))
        rows.append((name, loop, *(texts if any(one.kept for one in found) else ("", "", ""))))
    print_table(title, ("", "loop, CPU ns per event", "recorder, CPU ns", "bytes per event kept", "kept, %"), rows)


def main() -> None:
    parser = arguments(__doc__, 3)
    parser.add_argument("--opens", type=int, default=200_000)
    parser.add_argument("--packets", type=int, default=200_000)
    options = parser.parse_args()
    machine = describe_machine()
    print_machine()
    opens = measured("open_loop", OPENS, options.opens, options.rounds)
    _print(f"{options.opens:,} opens", opens)
    packets = measured("udp_loop", PACKETS, options.packets, options.rounds)
    _print(f"{options.packets:,} datagrams", packets)
    write_json(options.json, machine, {"opens": opens, "packets": packets})


if __name__ == "__main__":
    main()
