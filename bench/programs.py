"""Which BPF programs of a run cost what, by the kernel's own count: flows with connections and with a stream, and trace
process with programs.

    sudo .venv/bin/python -m bench.programs [--rounds 3] [--count 2000] [--json FILE]

The time of one run hardly depends on what else the machine does, unlike the time that a loop takes. The kernel's clock
readings are part of it, some 50 ns for each run; and runs for other processes count, too, so that `ns` and `runs` are
only meaningful on an idle machine.
"""

import os
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

from bench.exec import LOAD as EXEC
from bench.exec import TRACERS as EXEC_TRACERS
from bench.overhead import Load, Loop, Tracer, running
from bench.program_counts import counting, counting_ns, program_counts, program_names
from bench.rounds import arguments, describe_machine, print_machine, print_table, spread, write_json
from bench.tcp import CONNECT, CONNECT_TRACERS, STREAM

_LEAST_NS = 20
"""Programs that cost less per unit are added up."""
_OTHERS = "all others"


def _named(tracers: list[Tracer], name: str) -> Tracer:
    return next(one for one in tracers if one.name == f"kubectl gadget {name}")


RUNS: dict[str, tuple[Load, Tracer]] = {
    "flows, per connection": (CONNECT, _named(CONNECT_TRACERS, "flows")),
    "flows, per 64 KiB": (STREAM, _named(CONNECT_TRACERS, "flows")),
    "trace process, per program": (EXEC, _named(EXEC_TRACERS, "trace process")),
}


def _measure(load: Load, tracer: Tracer, count: int) -> dict[str, tuple[float, float]]:
    """Returns nanoseconds and runs per unit, by the programs' names; those of one name are added up."""
    total: Counter[str] = Counter()
    runs: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        loop = Loop(load, count, Path(name))
        with running(tracer, Path(name)) as (pid, _):
            names, before = program_names(), program_counts([pid])
            loop.run()
            for id, (ns, ran) in program_counts([pid]).items():
                since = before.get(id, (0, 0))
                total[names.get(id, "?")] += ns - since[0]
                runs[names.get(id, "?")] += ran - since[1]
    return {name: (total[name] / count, runs[name] / count) for name in total}


def counted_ns(load: Load, tracer: Tracer, count: int) -> float:
    """Nanoseconds per unit that the kernel counts for all programs, without what counting takes."""
    with counting():
        each = counting_ns()
        return sum(ns - runs * each for ns, runs in _measure(load, tracer, count).values())


def main() -> None:
    parser = arguments(__doc__, 3)
    parser.add_argument("--count", type=int, default=2000, help="iterations of the loops")
    options = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("tracing needs root. try: sudo .venv/bin/python -m bench.programs")
    machine, results = describe_machine(), {}
    print_machine()
    with counting():
        for title, (load, tracer) in RUNS.items():
            rounds = [_measure(load, tracer, options.count) for _ in range(options.rounds)]
            results[title] = rounds
            _print(title, rounds)
    write_json(options.json, machine, results)


def _print(title: str, rounds: list[dict[str, tuple[float, float]]]) -> None:
    by_name: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for of_round in rounds:
        for name, costs in of_round.items():
            by_name[name if costs[0] >= _LEAST_NS else _OTHERS].append(costs)
    rows = [
        [
            name,
            spread([ns for ns, _ in costs]).text(),
            f"{spread([ran for _, ran in costs]).median:.1f}",
            f"{spread([ns / ran for ns, ran in costs if ran]).median:.0f}",
        ]
        for name, costs in sorted(by_name.items(), key=lambda item: -max(item[1])[0])
        if name != _OTHERS
    ]
    rows.append(["all", spread([sum(ns for ns, _ in of_round.values()) for of_round in rounds]).text(), "", ""])
    print_table(title, ("program", "ns, median (min to max)", "runs", "ns per run"), rows)


if __name__ == "__main__":
    main()
