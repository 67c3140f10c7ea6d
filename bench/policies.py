"""What policies cost: kernel memory, and time for each call of a hook, at 1, 10, 100 and 500 policies.

Run it as root: `sudo .venv/bin/python bench/policies.py [CALLS]`. Each policy has five selectors, of which one has a
prefix and four have three whole paths, all on one hook, the system call openat, whose tracepoint every kernel has; the
loop's calls match none, as most calls do. The time is the median of rounds, less that of the same without policies.
"""

import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from kubectl_gadget.policies.model import Argument, Filter, Hook, Policy, Selector, Subject
from tests.bpf.policy_engine import Enforcer

COUNTS = (1, 10, 100, 500)
SELECTORS, ROUNDS = 5, 5
PATH = "/dev/null"


def policies(count: int) -> list[Policy]:
    """With filters of their own each."""
    path = Subject("argument", 0)

    def selector(policy: int, number: int) -> Selector:
        if not number:
            return Selector(filters=(Filter(path, "prefix", (f"/srv/policy-{policy}/",)),))
        return Selector(filters=(Filter(path, "equal", tuple(f"/etc/{policy}/{number}/{i}" for i in range(3))),))

    return [
        Policy(
            str(policy),
            hooks=(
                Hook(
                    "kprobe",
                    "sys_openat",
                    syscall=True,
                    arguments=(Argument(1, "string"),),
                    selectors=tuple(selector(policy, number) for number in range(SELECTORS)),
                ),
            ),
        )
        for policy in range(count)
    ]


def kernel_bytes() -> int:
    """Of the maps and programs that this process holds, as the kernel counts them, but for the ring's."""
    total = 0
    for entry in os.scandir("/proc/self/fdinfo"):
        try:
            lines = dict(line.split(":\t", 1) for line in Path(entry.path).read_text().splitlines() if ":\t" in line)
        except OSError:
            continue
        if "memlock" in lines and lines.get("map_type") != "27":
            total += int(lines["memlock"])
    return total


def seconds(calls: int) -> float:
    """For that many calls."""
    begin = time.perf_counter()
    for _ in range(calls):
        os.close(os.open(PATH, os.O_RDONLY))
    return time.perf_counter() - begin


def main() -> None:
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    print(f"{'policies':>8} {'selectors':>9} {'kernel memory':>14} {'loaded in':>10} {'per call':>9}")
    for count in COUNTS:
        added, before = [], kernel_bytes()
        begin = time.perf_counter()
        enforcer = Enforcer(*policies(count), pid=0)
        with enforcer:
            loaded = time.perf_counter() - begin
            held = kernel_bytes() - before
        for _ in range(ROUNDS):
            idle = seconds(calls)
            with Enforcer(*policies(count), pid=0):
                added.append(seconds(calls) - idle)
        per_call = statistics.median(added) / calls * 1e9
        print(
            f"{count:>8} {count * SELECTORS:>9} {held / 1024:>11.0f} KiB {loaded:>8.2f} s {per_call:>6.0f} ns",
            flush=True,
        )


if __name__ == "__main__":
    if os.geteuid():
        sys.exit("run it as root: BPF programs are loaded")
    main()
