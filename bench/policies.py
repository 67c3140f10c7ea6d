"""What policies cost: kernel memory, and time for each call of a hook, at 1, 10, 100 and 500 policies.

Run it as root. Each policy has five selectors, of which one has a prefix and four have three whole paths, all on one
hook, the system call openat, whose tracepoint every kernel has; the loop's calls match none, as most calls do.
"""

import os
import time
from functools import partial
from pathlib import Path

from bench.rounds import alternate, arguments, describe_machine, print_machine, print_table, spread, write_json
from kubectl_gadget.policies.model import Argument, Hook, HookFilter, Policy, Selector, Subject
from tests.bpf.policy_engine import Enforcer

COUNTS = (1, 10, 100, 500)
SELECTORS = 5
PATH = "/dev/null"


def policies(count: int) -> list[Policy]:
    """Policies, each with different filters."""
    path = Subject("argument", 0)

    def selector(policy: int, number: int) -> Selector:
        if not number:
            return Selector(filters=(HookFilter(path, "prefix", (f"/srv/policy-{policy}/",)),))
        return Selector(filters=(HookFilter(path, "equal", tuple(f"/etc/{policy}/{number}/{i}" for i in range(3))),))

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
    """Memory of the maps and programs that this process holds, as counted by the kernel, without the ring buffer's.
    Each once, however many descriptors lead to it."""
    found = {}
    for entry in os.scandir("/proc/self/fdinfo"):
        try:
            lines = dict(line.split(":\t", 1) for line in Path(entry.path).read_text().splitlines() if ":\t" in line)
        except OSError:
            continue
        if "memlock" in lines and lines.get("map_type") != "27":
            found[lines.get("map_id"), lines.get("prog_id")] = int(lines["memlock"])
    return sum(found.values())


def held(count: int) -> tuple[int, float]:
    """Bytes of kernel memory with this many policies, and the seconds that loading them took."""
    before, begin = kernel_bytes(), time.perf_counter()
    with Enforcer(*policies(count), pid=0):
        loaded = time.perf_counter() - begin
        return kernel_bytes() - before, loaded


def per_call(count: int, calls: int) -> float:
    """Seconds per call with this many policies."""
    if not count:
        return _opens(calls)
    with Enforcer(*policies(count), pid=0):
        return _opens(calls)


def _opens(calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        os.close(os.open(PATH, os.O_RDONLY))
    return (time.perf_counter() - begin) / calls


def main() -> None:
    parser = arguments(__doc__, 5)
    parser.add_argument("--calls", type=int, default=200_000)
    options = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("loading programs needs root. try: sudo …")
    machine = describe_machine()
    print_machine()
    memory = {count: held(count) for count in COUNTS}
    variants = {str(count): partial(per_call, count, options.calls) for count in (0, *COUNTS)}
    times = alternate(variants, options.rounds)
    without = spread(times["0"]).median
    rows = [
        (
            *(count, count * SELECTORS, f"{bytes / 2**20:.1f}", f"{loaded:.1f}"),
            f"{(spread(times[str(count)]).median - without) * 1e9:.0f}",
        )
        for count, (bytes, loaded) in memory.items()
    ]
    titles = ("policies", "selectors", "MiB of the kernel without the ring", "loaded in s", "added ns per openat")
    print_table("Policies that no call matches", titles, rows)
    write_json(options.json, machine, {"memory": memory, "times": times})


if __name__ == "__main__":
    main()
