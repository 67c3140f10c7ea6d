"""How long from Enter to attached, and to the first row: on this machine, and on the cluster in $KUBECONFIG.

    sudo .venv/bin/python bench/start.py [--rounds 5] [--cluster] [--json FILE] [-- FLAGS OF trace open]

With --cluster it runs once per round against whatever agents are there: resident ones after `kubectl gadget deploy`,
else on demand. The trap: the first run after a build fills Python's and the kernel's caches, so one round is run before
the counted ones.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

PROGRAM = [sys.executable, "-m", "kubectl_gadget.cli.main"]


def start(flags: Sequence[str]) -> tuple[float, float | None]:
    """Seconds until `tracing` was said, and until the first row came."""
    began = time.monotonic()
    command = [*PROGRAM, "trace", "open", "-o", "json", "--max-events", "1", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
    assert process.stdout is not None
    assert process.stderr is not None
    attached = None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith("tracing"):
            attached = time.monotonic() - began
            break
    if attached is None:
        raise SystemExit(f"{' '.join(command)} did not start:\n{''.join(said)}")
    first = process.stdout.readline()
    row = time.monotonic() - began if first else None
    process.communicate(timeout=60)
    return attached, row


def imports() -> float:
    """Seconds that the client's own imports take, up to the help of a command."""
    began = time.monotonic()
    subprocess.run([*PROGRAM, "trace", "open", "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def summary(values: Sequence[float]) -> str:
    return f"{statistics.median(values):6.2f} s (min {min(values):.2f}, max {max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description="Enter to attached, and to the first row.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cluster", action="store_true", help="also against the cluster in $KUBECONFIG")
    parser.add_argument("--json", type=Path)
    parser.add_argument("flags", nargs="*", help="more flags of trace open on the cluster")
    arguments = parser.parse_args()
    variants = {"local": ["--local", "--host"]}
    if arguments.cluster:
        if not os.environ.get("KUBECONFIG"):
            raise SystemExit("--cluster needs $KUBECONFIG")
        variants["cluster"] = ["-A", *arguments.flags]
    results: dict[str, list[tuple[float, float | None]]] = {}
    help_times = [imports() for _ in range(arguments.rounds + 1)][1:]
    print(f"help            {summary(help_times)}")
    for name, flags in variants.items():
        results[name] = [start(flags) for _ in range(arguments.rounds + 1)][1:]
        print(f"{name:8} attached {summary([attached for attached, _ in results[name]])}")
        rows = [row for _, row in results[name] if row is not None]
        if rows:
            print(f"{name:8} first row{summary(rows)}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"help": help_times, **results}, indent=1))


if __name__ == "__main__":
    main()
