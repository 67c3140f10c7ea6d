"""Runs variants alternately in rounds; prints medians and spread as a table, and writes all of it as JSON.

A variant that always runs after the same other one inherits its state (caches, clock frequency), so every second round
runs in reverse order.
"""

import argparse
import io
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tabulate import tabulate

Measured = TypeVar("Measured")


@dataclass(frozen=True)
class Spread:
    """Median, lowest and highest of some measurements."""

    median: float
    low: float
    high: float

    def text(self, digits: int = 0, factor: float = 1.0) -> str:
        """`12.3 (11.9 to 14.0)`, or `12.3` where all are the same."""
        median, low, high = (f"{value * factor:,.{digits}f}" for value in (self.median, self.low, self.high))
        return median if low == high else f"{median} ({low} to {high})"


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def alternate(variants: Mapping[str, Callable[[], Measured]], rounds: int) -> dict[str, list[Measured]]:
    """All measurements of each variant, in the order of `variants`. Reports progress on standard error."""
    results: dict[str, list[Measured]] = {name: [] for name in variants}
    for number in range(rounds):
        names = list(variants)
        for name in names if number % 2 == 0 else reversed(names):
            if sys.stderr.isatty():
                print(f"\r\x1b[Kround {number + 1}/{rounds}: {name}\r", end="", file=sys.stderr, flush=True)
            results[name].append(variants[name]())
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    return results


class Discard(io.StringIO):
    """A stream that discards everything."""

    def write(self, text: str) -> int:
        return len(text)


class NotMeasurableError(Exception):
    """A variant cannot be measured here; the text says why."""


FAILURES = (NotMeasurableError, SystemExit, subprocess.SubprocessError, OSError)


def reason(error: BaseException) -> str:
    """In one line; of a program that failed, the last one that it wrote."""
    return f"{error}\n{getattr(error, 'stderr', None) or ''}".strip().splitlines()[-1]


def alternate_possible(
    variants: Mapping[str, Callable[[], Measured]], rounds: int
) -> tuple[dict[str, list[Measured]], dict[str, str]]:
    """Like alternate(), but a variant that fails is not tried again; also returns why it failed, by variant. It stays
    in the results if some of its rounds were measured."""
    failed: dict[str, str] = {}

    def attempt(name: str) -> Measured | None:
        if name in failed:
            return None
        try:
            return variants[name]()
        except FAILURES as error:
            failed[name] = reason(error)
            return None

    rounds_of = alternate({name: partial(attempt, name) for name in variants}, rounds)
    kept = {name: [one for one in found if one is not None] for name, found in rounds_of.items()}
    return {name: found for name, found in kept.items() if found}, failed


def end_with_children() -> None:
    """SIGTERM is taken as Ctrl-C, so that tracers, loops and doubles do not outlive a benchmark that is ended."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def arguments(doc: str | None, rounds: int) -> argparse.ArgumentParser:
    """The options that all benchmarks share; the first line of the module's docstring is their help. For the main
    program only: see end_with_children()."""
    end_with_children()
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=rounds, help="of each variant (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every measurement")
    return parser


def print_table(title: str, headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    print(f"\n{title}\n")
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))
    sys.stdout.flush()


def print_machine() -> None:
    """Prints the machine on which the following numbers were measured."""
    machine = describe_machine()
    print(", ".join(f"{name}: {value}" for name, value in machine.items()))


def describe_machine() -> dict[str, object]:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "memory": f"{memory:.0f} GiB",
        "python": platform.python_version(),
        "load before": round(os.getloadavg()[0], 1),
        "other BPF": attached_bpf(),
    }


def attached_bpf() -> str:
    """What is attached in the kernel before a benchmark attaches anything: programs of a test that was killed, and not
    seen, made an open six times slower. Those at all system calls are named, since everything pays for them."""
    if os.geteuid() != 0 or shutil.which("bpftool") is None:
        return "unknown: needs root and bpftool"
    links, held, programs = (_shown(what) for what in ("link", "perf", "prog"))
    hooks = [one.get("tp_name") or one.get("tracepoint") or "" for one in [*links, *held]]
    at_calls = Counter(hook.rpartition(":")[2] for hook in hooks if "sys_enter" in hook or "sys_exit" in hook)
    text = ", ".join(f"{count} at {hook}" for hook, count in sorted(at_calls.items()))
    return f"{len(links) + len(held)} attached, {text or 'none at all system calls'}; {len(programs)} loaded"


def _shown(what: str) -> list[dict[str, Any]]:
    shown = subprocess.run(["bpftool", "-j", what, "show"], capture_output=True, check=False).stdout
    found = json.loads(shown or "[]")
    return found if isinstance(found, list) else []


def write_json(path: Path | None, machine: Mapping[str, object], results: Any) -> None:
    """Writes the machine, the command and `results`, if a file is given. Warns if what others have attached in the
    kernel has changed meanwhile."""
    if "other BPF" in machine and (now := attached_bpf()) != machine["other BPF"]:
        print(f"\nother BPF before: {machine['other BPF']}, and at the end: {now}", file=sys.stderr)
    if path is not None:
        document = {"machine": machine, "command": sys.orig_argv, "results": results}
        path.write_text(json.dumps(document, indent=1, default=vars) + "\n")
