"""What was watched: the runs, the cluster's objects at the time, and the uses.

A use merges all rows that are equal in what matters to an advisor, with their sums. The trap: a recording describes
the cluster at that time, so advice from it never uses a cluster. Several recordings are merged as if they were one.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from kubectl_gadget.kube.inventory import Inventory

Use = dict[str, Any]
Watched = tuple[str, str, str]
"""Namespace, pod and container."""


@dataclass(frozen=True)
class UseKind:
    """Which members of a use are its key, and which are summed; other members keep the first value seen."""

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
    _uses: dict[tuple[Any, ...], Use] = field(default_factory=dict)

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
