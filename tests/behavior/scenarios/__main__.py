"""`python -m tests.behavior.scenarios --times 5 --output docs/behavior-noise.md`: how much noise there is, as a table.

Records the workloads, each run compared with the one before it, and the seeded changes, compared with all runs. The
trap: recordings are kept in the folder and used again, so that a measurement can be continued; begin with an empty one.
"""

import argparse
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from kubectl_gadget.behavior.comparison import Change, ChangeKind, compare
from kubectl_gadget.behavior.facts import Behavior, merge
from tests.behavior.scenarios.changes import CHANGES, SeededChange
from tests.behavior.scenarios.image import CACHE, image, versions
from tests.behavior.scenarios.recording import (
    behavior_of,
    one_workload,
    own_doubts,
    record_changes,
    record_workloads,
)
from tests.behavior.scenarios.workloads import WORKLOADS

_NAMESPACE = "shop"
_HEAD = """# Noise: what `behavior diff` says of programs that did not change

`python -m tests.behavior.scenarios --times {times} --output docs/behavior-noise.md` wrote this page
(Linux {kernel}, {cores} cores). It starts five programs from Debian's packages as pods under runc, loads and stops
them, {runs} times, each time with other names, pod hashes, PIDs and addresses, and with another random load.
`make test` does it twice.
"""
_NOISE = """
## The same program again
Differences are new and gone facts. Facts include those of what loads the program. nginx lists the directories of its
cache one minute after its start (its cache loader): a run that lasts longer, as on a busy machine, has these facts,
and a shorter one has not.

| program | facts | conclusive | differences between a run and the next |
| --- | --- | --- | --- |
"""
_FOUND = """
## Seeded changes
Each change is made to one of the programs, which then runs once. *Place* is where the change is in the list of what is
new compared with the runs above, and *new* the length of that list.

| change | program | found as | place | new |
| --- | --- | --- | --- | --- |
"""


def main() -> int:
    """Returns 1 if there is a difference, or if a change is not the first or second of what is found."""
    arguments = _arguments()
    image()
    folder: Path = arguments.folder
    runs = [_recorded(folder / f"run-{number}", record_workloads) for number in range(arguments.times + 1)]
    changed = _recorded(folder / "changes", record_changes)
    noise, places = list(_noise(runs)), list(_places(merge(runs), changed))
    head = _HEAD.format(times=arguments.times, runs=len(runs), kernel=platform.release(), cores=os.cpu_count())
    text = head + _NOISE + "".join(line for line, _ in noise) + _FOUND + "".join(line for line, _ in places)
    if arguments.output:
        arguments.output.write_text(text)
    else:
        sys.stdout.write(text)
    return 0 if all(good for _, good in (*noise, *places)) else 1


def _recorded(folder: Path, record: Callable[[Path, str], Path]) -> Behavior:
    file = folder / "run.kgr"
    done = folder / "done"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        record(folder, _NAMESPACE)
        done.touch()
        sys.stderr.write(f"recorded {file}\n")
    file.with_suffix(".yaml").unlink(missing_ok=True)
    return behavior_of(file)


def _noise(runs: Sequence[Behavior]) -> Iterator[tuple[str, bool]]:
    shown = versions()
    for workload in WORKLOADS:
        own = [one_workload(run, workload.name) for run in runs]
        facts = [len(run.facts) for run in own]
        found = [len(compare(old, new)) for old, new in pairwise(own)]
        doubtful = any(own_doubts(old, new) for old, new in pairwise(own))
        name = f"{workload.name}: {shown[workload.package]}"
        span = f"{min(facts)}" if min(facts) == max(facts) else f"{min(facts)} to {max(facts)}"
        yield (
            f"| {name} | {span} | {'no' if doubtful else 'yes'} | {', '.join(map(str, found))} |\n",
            not any(found) and not doubtful,
        )


def _places(runs: Behavior, changed: Behavior) -> Iterator[tuple[str, bool]]:
    for change in CHANGES:
        old = one_workload(runs, change.workload.name)
        new = one_workload(changed, change.called, called=change.workload.name)
        found = [one for one in compare(old, new) if one.kind is ChangeKind.NEW]
        place = next((number for number, one in enumerate(found, 1) if _is(one, change)), None)
        says = found[place - 1].fact.says if place else "not found"
        cells = (change.name, change.workload.name, f"`{says}`", place or "-", len(found))
        yield f"| {' | '.join(map(str, cells))} |\n", place in (1, 2)


def _is(found: Change, change: SeededChange) -> bool:
    return found.fact.kind is change.kind and change.says in found.fact.says


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.behavior.scenarios", description=__doc__)
    parser.add_argument("--times", type=int, default=5, help="comparisons of each program")
    parser.add_argument("--output", type=Path, help="the page to write (default: standard output)")
    parser.add_argument("--folder", type=Path, default=CACHE / "runs", help="where the recordings are")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
