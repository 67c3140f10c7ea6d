"""Reads the baselines that advice is made from, and says how completely their containers were watched."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from kubectl_gadget.behavior.baseline import is_baseline, read_baseline
from kubectl_gadget.behavior.facts import Behavior, FactKind, Unit, merge
from kubectl_gadget.errors import UsageError
from kubectl_gadget.kube.inventory import Workload


def read_baselines(names: Sequence[str]) -> Behavior | None:
    """The baselines in these files; None: all files are recordings. Raises UsageError if there are both."""
    found = [name for name in names if "://" not in name and is_baseline(Path(name))]
    if found and len(found) != len(names):
        raise UsageError("--from takes recordings or baselines, and not both")
    return merge(read_baseline(Path(name)).behavior for name in found) if found else None


def by_workload(behavior: Behavior) -> list[tuple[Workload, list[Unit]]]:
    found: dict[Workload, list[Unit]] = {}
    for unit in sorted(behavior.coverage, key=str):
        found.setdefault(unit.workload, []).append(unit)
    return list(found.items())


def file_name(workload: Workload) -> str:
    """The name of the container's file, without extension."""
    return "_".join(filter(None, (workload.namespace, workload.kind.lower(), workload.name)))


def gaps(behavior: Behavior, unit: Unit) -> Iterator[str]:
    """Says what the facts of a container may lack."""
    coverage = behavior.coverage[unit]
    if not coverage.complete_runs:
        yield f"  It was not watched completely: {'; '.join(coverage.incomplete)}"


def not_looked_at(behavior: Behavior, kind: FactKind) -> list[Unit]:
    """The containers that were not watched for facts of this kind."""
    return [unit for unit in sorted(behavior.coverage, key=str) if kind not in behavior.coverage[unit].kinds]
