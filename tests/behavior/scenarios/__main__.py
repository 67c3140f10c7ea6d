"""`python -m tests.behavior.scenarios --output docs/behavior-noise.md`: how much noise there is, as a table.

Records ten jobs of CI, each several times; twelve servers under random load, each run compared with the one before it;
and the seeded changes, compared with all runs. What does not run here is left out, and said. Note: recordings are kept
in the folder and used again, so that a measurement can be continued; begin with an empty one.
"""

import argparse
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

from kubectl_gadget.behavior.comparison import Change, ChangeKind, compare
from kubectl_gadget.behavior.facts import Behavior, merge
from kubectl_gadget.behavior.generalization import Generalizer, read_rules
from kubectl_gadget.behavior.learning import of_one_job
from tests.behavior.scenarios.changes import CHANGES, SeededChange
from tests.behavior.scenarios.ci_jobs import JOBS, Job, run_job
from tests.behavior.scenarios.image import CACHE, image, versions
from tests.behavior.scenarios.recording import (
    behavior_of,
    one_workload,
    own_doubts,
    record_changes,
    record_workloads,
)
from tests.behavior.scenarios.servers import SERVERS

_NAMESPACE = "shop"
_BASELINE_RUNS = 2
_SERVED = 65
"""seconds that servers run: nginx lists the directories of its cache one minute after its start"""
_HEAD = """# Noise: what `behavior diff` says of programs that did not change

`python -m tests.behavior.scenarios --output docs/behavior-noise.md` wrote this page (Linux {kernel}, {cores} cores),
from real runs on a busy machine. Differences are new and gone facts.
"""
_JOBS = """
## Jobs of CI
Each job begins in an empty folder, with an empty home, as on a new runner. *One run* is the baseline of the first run,
and *two runs* the baseline that `ci run --runs 2` makes, with what it learned. With `--fail-on-new all`, each new fact
is an error.

| job | what it does | facts | learned names | new facts against one run | against two runs | gone |
| --- | --- | --- | --- | --- | --- | --- |
"""
_NOISE = """
## Servers
Twelve programs from Debian's packages run as pods under runc. They are loaded and stopped, each time with other names,
pod hashes, PIDs and addresses, and with another random load. `make test` does it twice with five of them. Facts include
those of what loads the program. nginx lists the directories of its
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
    folder: Path = arguments.folder
    text = _HEAD.format(kernel=platform.release(), cores=os.cpu_count())
    every = list[tuple[str, bool]]()
    if "jobs" in arguments.parts:
        found = [line for job in JOBS for line in _job(job, folder / "jobs", arguments.times)]
        text += _JOBS + "".join(line for line, _ in found)
        every += found
    if "servers" in arguments.parts:
        root = image(more=True)
        record = partial(record_workloads, workloads=SERVERS, root=root, seconds=_SERVED)
        runs = [_recorded(folder / f"run-{number}", record) for number in range(arguments.times)]
        found = list(_noise(runs, versions(root)))
        text += _NOISE + "".join(line for line, _ in found)
        every += found
        if "changes" in arguments.parts:
            found = list(_places(merge(runs), _recorded(folder / "changes", record_changes)))
            text += _FOUND + "".join(line for line, _ in found)
            every += found
    if arguments.output:
        arguments.output.write_text(text)
    else:
        sys.stdout.write(text)
    return 0 if all(good for _, good in every) else 1


def _job(job: Job, folder: Path, times: int) -> Iterator[tuple[str, bool]]:
    """The row of a job, which runs so many times more than its baseline needs."""
    if job.missing:
        yield f"| {job.name} | {job.about} | not run: no {', '.join(job.missing)} | | | | |\n", True
        return
    folder.mkdir(parents=True, exist_ok=True)
    runs = list[Behavior]()
    for number in range(_BASELINE_RUNS + times):
        file = folder / f"{job.name}-{number}.kgr"
        if not file.exists():
            partly = file.with_suffix(".part.kgr")
            partly.unlink(missing_ok=True)
            run_job(job, partly)
            partly.rename(file)
            sys.stderr.write(f"recorded {file}\n")
        file.with_suffix(".yaml").unlink(missing_ok=True)
        runs.append(behavior_of(file))
    known = of_one_job(runs[:_BASELINE_RUNS], Generalizer(read_rules()))
    of_one = [_new(compare(runs[0], run)) for run in runs[1:]]
    of_several = [compare(known, run) for run in runs[_BASELINE_RUNS:]]
    facts = [len(run.facts) for run in runs]
    cells = (
        *(job.name, job.about, _span(facts), len(known.learned), ", ".join(map(str, of_one))),
        ", ".join(str(_new(found)) for found in of_several),
        ", ".join(str(len(found) - _new(found)) for found in of_several),
    )
    yield f"| {' | '.join(map(str, cells))} |\n", not any(map(_new, of_several))


def _new(changes: Sequence[Change]) -> int:
    return sum(change.kind is ChangeKind.NEW for change in changes)


def _span(numbers: Sequence[int]) -> str:
    return f"{min(numbers)}" if min(numbers) == max(numbers) else f"{min(numbers)} to {max(numbers)}"


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


def _noise(runs: Sequence[Behavior], shown: Mapping[str, str]) -> Iterator[tuple[str, bool]]:
    for workload in SERVERS:
        own = [one_workload(run, workload.name) for run in runs]
        facts = [len(run.facts) for run in own]
        found = [len(compare(old, new)) for old, new in pairwise(own)]
        doubtful = any(own_doubts(old, new) for old, new in pairwise(own))
        name = f"{workload.name}: {shown[workload.package]}"
        yield (
            f"| {name} | {_span(facts)} | {'no' if doubtful else 'yes'} | {', '.join(map(str, found))} |\n",
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
    parser.add_argument("--times", type=int, default=5, help="runs of each job beyond its baseline, and of each server")
    parser.add_argument("--parts", nargs="+", default=["jobs", "servers", "changes"], help="what to run")
    parser.add_argument("--output", type=Path, help="the page to write (default: standard output)")
    parser.add_argument("--folder", type=Path, default=CACHE / "runs", help="where the recordings are")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
