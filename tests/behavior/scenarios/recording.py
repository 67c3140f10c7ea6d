"""Records runs of the workloads, and reads their behavior, by the commands that users have for it."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep

from kubectl_gadget.behavior.baseline import read_baseline
from kubectl_gadget.behavior.comparison import doubts
from kubectl_gadget.behavior.facts import Behavior
from tests.behavior.scenarios.changes import CHANGES
from tests.behavior.scenarios.stage import Stage
from tests.behavior.scenarios.workloads import WORKLOADS, Workload
from tests.gadget_run import GADGET, PROJECT, GadgetRun

_AT_ONCE = 6
"""Number of changed workloads that run side by side."""
_ROOM = ("--ring-size", "16Mi")
"""Other tests keep this machine busy, and nothing may be lost."""
_OTHERS = ("of unknown containers", "(of unknown containers)")


@contextmanager
def stage(
    folder: Path, namespace: str, workloads: Sequence[Workload] = WORKLOADS, root: Path | None = None
) -> Iterator[Stage]:
    """A stage with a DNS server."""
    with Stage(folder, namespace, root) as found:
        found.serve_names([workload.name for workload in workloads])
        yield found


@contextmanager
def recording(folder: Path, namespace: str, *flags: str) -> Iterator[GadgetRun]:
    """Records a namespace in `folder`/run.kgr."""
    words = ["record", "--for", "behavior", "--local", "-n", namespace, "-o", str(folder / "run.kgr"), *flags]
    with GadgetRun(folder, *words) as run:
        yield run
        assert run.stop() in (0, 130), run.said()


def record_workloads(
    folder: Path,
    namespace: str,
    workloads: Sequence[Workload] = WORKLOADS,
    root: Path | None = None,
    seconds: float = 0,
) -> Path:
    """Starts, loads and stops all workloads once. Returns the recording. `seconds`: how long they run at least."""
    with stage(folder, namespace, workloads, root) as pods, recording(folder, namespace, *_ROOM):
        for workload in workloads:
            pods.start(workload)
        end = monotonic() + seconds
        pods.load(workloads)
        sleep(max(0, end - monotonic()))
        pods.stop()
    return folder / "run.kgr"


def record_changes(folder: Path, namespace: str) -> Path:
    """Starts and stops a changed workload for each of CHANGES. Returns the recording."""
    with stage(folder, namespace) as pods, recording(folder, namespace, *_ROOM):
        pods.serve_outside()
        for first in range(0, len(CHANGES), _AT_ONCE):
            changes = CHANGES[first : first + _AT_ONCE]
            begun = [pods.begin(change.workload, called=change.called, replicas=1) for change in changes]
            for change, of_change in zip(changes, begun, strict=True):
                pods.wait_for(change.workload, of_change)
            pods.stop(at_once=True)
    return folder / "run.kgr"


def behavior_of(recorded: Path) -> Behavior:
    """The behavior in a recording, by way of a baseline."""
    baseline = recorded.with_suffix(".yaml")
    command = [*GADGET, "behavior", "save", str(baseline), "--from", str(recorded)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert baseline.exists(), done.stderr
    return read_baseline(baseline).behavior


def one_workload(behavior: Behavior, name: str, called: str = "") -> Behavior:
    """The behavior of the containers of one workload, and of what loads it; `called`: as that of another name."""
    found = {unit.workload for unit in behavior.coverage if unit.workload.name in (name, f"load-{name}")}
    facts = tuple(fact for fact in behavior.facts if fact.workload in found)
    coverage = {unit: coverage for unit, coverage in behavior.coverage.items() if unit.workload in found}
    only = replace(behavior, facts=facts, coverage=coverage)
    return only.renamed({workload: replace(workload, name=called) for workload in found}) if called else only


def own_doubts(old: Behavior, new: Behavior) -> list[str]:
    """Why a comparison is inconclusive, but for containers of others on this machine whose names no runtime has."""
    return [reason for reason in doubts(old, new) if not reason.endswith(_OTHERS)]
