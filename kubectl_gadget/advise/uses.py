"""The data of watching: the runs, the cluster's objects at the time, and the uses.

A use merges all rows that are equal in what matters to an advisor, with their sums. A recording describes
the cluster at that time, so advice from it never uses a cluster. Several recordings are merged as if they were one.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kubectl_gadget.kube.inventory import Inventory, Workload
from kubectl_gadget.rows.containers import SANDBOX
from kubectl_gadget.wording import count, some

Use = dict[str, Any]
Watched = tuple[str, str, str]
"""Namespace, pod and container."""
RUNC = "runc:["
"""runc's name until the container's program begins; what it does before is not attributed to the container."""


@dataclass(frozen=True)
class UseKind:
    """The members of a use that are its key, and the ones to sum; other members keep the first value seen."""

    key: tuple[str, ...]
    sums: tuple[str, ...]


@dataclass(frozen=True)
class WatchPeriod:
    """One period of watching."""

    began: str
    """RFC 3339"""
    seconds: float
    nodes: tuple[str, ...]
    lost: int
    """number of events that are missing"""
    doubts: tuple[str, ...] = ()
    """what else was not watched, as clauses (run/coverage.py)"""


@dataclass
class SeenUses:
    """Everything that advice is based on."""

    kind: UseKind
    runs: list[WatchPeriod] = field(default_factory=list)
    inventory: Inventory = field(default_factory=Inventory)
    watched: list[Watched] = field(default_factory=list)
    """all containers that existed, including those that did nothing"""
    earlier: set[Watched] = field(default_factory=set)
    """containers that ran before watching began"""
    begun: set[Watched] = field(default_factory=set)
    """containers that were seen to start at least once"""
    lacking: list[str] = field(default_factory=list)
    """what its source cannot show, as warnings"""
    _uses: dict[tuple[object, ...], Use] = field(default_factory=dict)

    @property
    def uses(self) -> list[Use]:
        """The uses, in the order in which they were first seen."""
        return list(self._uses.values())

    @property
    def seconds(self) -> float:
        return sum(run.seconds for run in self.runs)

    def add(self, uses: Iterable[Use]) -> None:
        for use in uses:
            key = tuple(use.get(name) for name in self.kind.key)
            known = self._uses.get(key)
            if known is None:
                self._uses[key] = dict(use)
            else:
                for name in self.kind.sums:
                    known[name] += use[name]

    def watch(self, container: Watched, earlier: bool) -> None:
        """Adds a container that was watched; `earlier`: it was running before."""
        if container not in self.earlier | self.begun:
            self.watched.append(container)
        (self.earlier if earlier else self.begun).add(container)


# What an advisor watches. What its gadgets omit cannot be part of the advice later, so their parameters are those that
# show more.


UsesOf = Callable[[Mapping[str, object]], Iterable[Use]]


@dataclass(frozen=True)
class Instead:
    """Other gadgets whose recording has nearly the same uses."""

    gadgets: tuple[str, ...]
    uses_of: Callable[[SeenUses], UsesOf]
    """makes the reader of their rows, which may be stateful"""
    lacks: str
    """what they lack, as worded in a warning"""


@dataclass(frozen=True)
class Recipe:
    """The uses that one advisor watches."""

    name: str
    kind: UseKind
    uses_of: UsesOf
    sources: tuple[tuple[str, Mapping[str, object]], ...]
    """gadgets with their parameters"""
    whole_cluster: bool = False
    """the advice names pods other than the watched ones, and services and nodes"""
    instead: Instead | None = None
    """for recordings without these gadgets"""


# Uses by container of a workload, so that replicas are merged.


@dataclass(frozen=True)
class ContainerOf:
    """One container, merged over all replicas of a workload. Outside Kubernetes, it is a workload of its own."""

    workload: Workload
    container: str
    init: bool = False

    @property
    def file_name(self) -> str:
        """The parts of the name, joined by a character that no name in Kubernetes contains."""
        workload = self.workload
        return "_".join(filter(None, (workload.namespace, workload.kind.lower(), workload.name, self.container)))

    def __str__(self) -> str:
        return f"{self.workload}/{self.container}"


def by_container(
    uses: Iterable[Use], inventory: Inventory, watched: Iterable[Watched] = ()
) -> dict[ContainerOf, list[Use]]:
    """The uses by container, sorted by name. Containers in `watched` that have no uses get an empty list."""
    found: dict[ContainerOf, list[Use]] = {}
    for namespace, name, container in watched:
        found.setdefault(_container_of(inventory, namespace, name, container), [])
    for use in uses:
        if use["container"] == SANDBOX:
            continue  # a pod's template does not configure its sandbox
        item = _container_of(inventory, use["namespace"], use["pod"], use["container"])
        found.setdefault(item, []).append(use)
    return dict(sorted(found.items(), key=lambda item: str(item[0])))


def start_unseen(recording: SeenUses) -> set[ContainerOf]:
    """Return containers that ran before watching began, if no replica was seen to start."""
    earlier, begun = (
        {_container_of(recording.inventory, *names) for names in found}
        for found in (recording.earlier, recording.begun)
    )
    return earlier - begun


def _container_of(inventory: Inventory, namespace: str, name: str, container: str) -> ContainerOf:
    pod = inventory.pod(namespace, name)
    init = pod is not None and container in pod.init_containers
    return ContainerOf(inventory.workload(namespace, name or container), container, init)


def by_workload(containers: Iterable[ContainerOf]) -> dict[Workload, list[ContainerOf]]:
    found: dict[Workload, list[ContainerOf]] = {}
    for item in containers:
        found.setdefault(item.workload, []).append(item)
    return found


def replicas(uses: Iterable[Use]) -> int:
    """The number of pods that these uses come from."""
    return len({(use["namespace"], use["pod"]) for use in uses})


# In words, what advice is based on, and why it may be incomplete. Watching can show what containers do, never what they
# do not do, so nothing here ever says "complete".


_SHORT = 600.0
_LONG = 86_400.0
_MOST_NAMED = 5


def duration(seconds: float) -> str:
    """`90 s`, `12 min`, `3.5 h`."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"


def summary(recording: SeenUses) -> str:
    """One line for people, also used at the head of the output."""
    runs = recording.runs
    nodes = {node for run in runs for node in run.nodes}
    times = "" if len(runs) == 1 else f" in {len(runs)} runs"
    since = f", beginning at {min(run.began for run in runs)}" if runs else ""
    return f"watched for {duration(recording.seconds)}{times}{since}, on {count(len(nodes), 'node')}"


def warnings(recording: SeenUses) -> Iterator[str]:
    """Reasons why the advice may be incomplete, the most serious first."""
    lost = sum(run.lost for run in recording.runs)
    if lost:
        yield f"{lost:,} events were lost, so something may be missing (try: --ring-size 16Mi)"
    yield from recording.lacking
    if doubts := list(dict.fromkeys(text for run in recording.runs for text in run.doubts)):
        yield f"not everything was watched: {some(doubts, _MOST_NAMED)}"
    seconds = recording.seconds
    if seconds < _SHORT:
        yield (
            f"{duration(seconds)} is too short to be complete: what happens at startup, every hour, at night or when "
            "something fails was hardly seen. Watch longer, and through a restart (--record and --from join runs)"
        )
    elif seconds < _LONG:
        yield f"{duration(seconds)} is less than a day: rare behavior may be missing"
    else:
        yield "behavior that did not occur in this time is not included"
    if old := sorted(map(str, start_unseen(recording))):
        yield (
            f"already running when watching began, so what they need to start was not seen: {some(old, _MOST_NAMED)} "
            "(restart them while watching)"
        )


def start_note(item: ContainerOf, unseen: Container[ContainerOf]) -> tuple[str, ...]:
    """A comment for the advice on a container whose start was never seen; empty otherwise."""
    if item not in unseen:
        return ()
    return ("  Its start was not seen, so this may not suffice for it to start: restart it while watching.",)
