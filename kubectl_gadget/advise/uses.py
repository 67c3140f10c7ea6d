"""What was watched: the runs, the cluster's objects at the time, and the uses. Read from JSON lines, too, which
earlier versions recorded:

    {"recording": "networkpolicy", "version": 1}
    {"run": {"began": "2026-01-01T12:00:00Z", "seconds": 600.0, "nodes": ["n1"], "lost": 0}}
    {"pod": {…}}  {"service": {…}}  {"node": {…}}  {"namespace": {…}}
    {"container": {"namespace": "shop", "pod": "web-1", "container": "main", "earlier": true}}
    {"fact": {"namespace": "shop", "pod": "web-1", …, "count": 7}}

A use merges all rows that are equal in what matters to an advisor, with their sums. The trap: a recording describes
the cluster at that time, so advice from it never uses a cluster; several recordings are merged as if they had been
watched at once.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from kubectl_gadget.errors import UsageError
from kubectl_gadget.events.typed import make
from kubectl_gadget.kube.inventory import Inventory, Node, Pod, Service

VERSION = 1
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
    failed: tuple[str, ...] = ()
    """nodes that were not watched to the end"""


@dataclass
class Recording:
    """Everything that advice is based on."""

    advisor: str
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
        """The total time of watching, in seconds."""
        return sum(run.seconds for run in self.runs)

    def add(self, uses: Iterable[Use]) -> None:
        """Merges uses into the recording."""
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

    def keep_only(self, namespace: str | None, pods: Sequence[str], containers: Sequence[str]) -> None:
        """Removes the uses of all others; an empty condition excludes nothing."""

        def wanted(of_namespace: str, pod: str, container: str) -> bool:
            return (
                namespace in (None, of_namespace)
                and (not pods or pod in pods)
                and (not containers or container in containers)
            )

        self.watched = [item for item in self.watched if wanted(*item)]
        self._uses = {
            key: use for key, use in self._uses.items() if wanted(use["namespace"], use["pod"], use["container"])
        }

    def read(self, stream: TextIO, name: str) -> None:
        """Adds a recording. Raises UsageError when the text is not one, or is for another advisor."""
        inventory = self.inventory
        take = {
            "run": lambda value: self.runs.append(make(WatchPeriod, value)),
            # Older versions wrote whether a pod had started.
            "pod": lambda value: inventory.pods.append(
                make(Pod, {name: value[name] for name in value.keys() - {"started"}})
            ),
            "service": lambda value: inventory.services.append(make(Service, value)),
            "node": lambda value: inventory.nodes.append(make(Node, value)),
            "namespace": lambda value: inventory.namespaces.update({value["name"]: value["labels"]}),
            "container": lambda value: self.watch(
                (value["namespace"], value["pod"], value["container"]), value.get("earlier", False)
            ),
            "fact": lambda value: self.add([value]),
        }
        for number, line in enumerate(stream, 1):
            try:
                entry = json.loads(line)
                if number == 1:
                    self._check_head(entry, name)
                    continue
                ((kind, value),) = entry.items()
                take[kind](value)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise UsageError(f"{name}, line {number}: not a recording of kubectl gadget advise") from None
        inventory.forget_doubles()

    def _check_head(self, entry: Any, name: str) -> None:
        if not isinstance(entry, dict) or "recording" not in entry:
            raise UsageError(f"{name} is not a recording", "a file that --record wrote")
        if entry["recording"] != self.advisor:
            raise UsageError(f"{name} was recorded for advise {entry['recording']}", f"advise {entry['recording']}")
        if entry.get("version") != VERSION:
            raise UsageError(f"{name} was written by another version of this program ({entry.get('version')})")
