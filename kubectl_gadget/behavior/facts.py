"""Facts: what a container of a workload does, generalized so that the next run gives the same ones.

A `Behavior` has the facts of some runs, and for each container how much of it was watched. The trap: what is known
about a fact (in how many pods, how often, since when) is no part of its equality, or no two runs would be alike; and a
fact that is absent means something only where the container was watched completely, for facts of that kind.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property, lru_cache
from types import MappingProxyType

from kubectl_gadget.filters.cel import compile_pattern
from kubectl_gadget.kube.inventory import Workload


class FactKind(StrEnum):
    """The kinds of facts, in the order in which they are listed."""

    PROGRAM = "program"
    CONNECT = "connect"
    LISTEN = "listen"
    RESOLVE = "resolve"
    OPEN = "open"
    CHANGE = "change"
    DEPENDENCY = "dependency"
    CAPABILITY = "capability"
    PRIVILEGE = "privilege"
    SYSCALL = "syscall"
    EXIT = "exit"


USUAL_KINDS = frozenset(FactKind) - {FactKind.SYSCALL}
"""kinds that a complete run watches"""
_ORDER = {kind: number for number, kind in enumerate(FactKind)}
_SAYS = MappingProxyType(
    {
        FactKind.CONNECT: "connects to",
        FactKind.LISTEN: "listens on",
        FactKind.RESOLVE: "resolves",
        FactKind.CHANGE: "sets",
        FactKind.CAPABILITY: "uses",
        FactKind.PRIVILEGE: "changes privileges:",
        FactKind.SYSCALL: "calls",
        FactKind.EXIT: "ends with",
    }
)
RUNTIME = "(runtime)"
"""the container runtime, also where it starts a container's first program or the program of kubectl exec"""
ALREADY_RUNNING = "(already running)"
"""stands for the unknown starter of a program that ran when watching began"""
READ, WRITE, DENIED, MISSING = "read", "write", "denied", "missing"
"""The first word of the value of an open."""
_OPENS = {READ: "reads", WRITE: "writes", DENIED: "is refused", MISSING: "looks for"}


REMOVED = "/<removed>"
"""The end of a path of a directory that was renamed and then removed, which is no news."""
CONTENT = "sha256:"
"""The first characters of a library's version that is known by its contents."""
PATHS = (FactKind.OPEN, FactKind.CHANGE)
"""Kinds whose values end with a path."""


def is_of_removed(fact: "Fact") -> bool:
    """True if a fact is about a directory that was renamed and then removed, or below one, as its removal does."""
    return fact.kind in PATHS and fact.value.endswith(REMOVED)


def path_parts(kind: FactKind, value: str) -> tuple[str, str]:
    """The change of a path, and the path: `mode 4755` and `/bin/su`. `kind` is one of PATHS."""
    end = value.find(" /") if kind is FactKind.CHANGE else value.find(" ")
    return (value[:end], value[end + 1 :]) if end >= 0 else (value, "")


@dataclass(frozen=True)
class Unit:
    """One container of a workload, over all its pods."""

    workload: Workload
    container: str

    def __str__(self) -> str:
        return f"{self.workload}/{self.container}"


@dataclass(frozen=True)
class Fact:
    """One fact. Facts with the same workload, container, kind, program and value are equal."""

    workload: Workload
    container: str
    kind: FactKind
    program: str
    """the generalized path of the program that does it"""
    value: str
    """the object, generalized; for a program, the one that starts it"""
    pods: int = field(default=1, compare=False)
    """in how many pods it was seen; Coverage has how many there were"""
    runs: int = field(default=1, compare=False)
    count: int = field(default=1, compare=False)
    """how often; a lower bound where the kernel drops repeated events"""
    first_seen: str = field(default="", compare=False)
    """RFC 3339"""
    evidence: Mapping[str, object] = field(default_factory=dict, compare=False)
    """one row that it was seen in"""
    images: tuple[str, ...] = field(default=(), compare=False)

    @cached_property
    def unit(self) -> Unit:
        return Unit(self.workload, self.container)

    @property
    def id(self) -> str:
        """A stable identifier: the same in every file and on every machine."""
        parts = (str(self.workload), self.container, self.kind, self.program, self.value)
        return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]

    @property
    def order(self) -> tuple[str, str, int, str, str]:
        """The key by which facts are sorted."""
        return str(self.workload), self.container, _ORDER[self.kind], self.program, self.value

    @property
    def says(self) -> str:
        """The fact in words, without its container. Not escaped."""
        if self.kind is FactKind.PROGRAM and self.value == ALREADY_RUNNING:
            return f"already runs {self.program}"
        if self.kind is FactKind.PROGRAM:
            return f"{self.value} runs {self.program}" if self.value else f"runs {self.program}"
        if self.kind is FactKind.DEPENDENCY:
            return f"uses {self.value}"
        if self.kind is FactKind.OPEN:
            access, _, path = self.value.partition(" ")
            return f"{self.program} {_OPENS.get(access, access)} {path}"
        if self.kind is FactKind.CAPABILITY and self.value.startswith(f"{DENIED} "):
            return f"{self.program} is {self.value}"
        return f"{self.program} {_SAYS[self.kind]} {self.value}"

    def to_json(self, members: Mapping[str, object]) -> dict[str, object]:
        """The fact for programs, with further members."""
        return {
            "id": self.id,
            "namespace": self.workload.namespace,
            "workload_kind": self.workload.kind,
            "workload": self.workload.name,
            "container": self.container,
            "kind": str(self.kind),
            "program": self.program,
            "value": self.value,
            "text": self.says,
            **members,
            "first_seen": self.first_seen or None,
            "images": list(self.images),
            "evidence": dict(self.evidence) or None,
        }


@dataclass(frozen=True)
class Coverage:
    """The time and the kinds for which a container was watched."""

    pods: int = 1
    runs: int = 1
    complete_runs: int = 1
    """runs in which nothing is missing"""
    incomplete: tuple[str, ...] = ()
    """for each of the other runs, why, such as "12 events were lost"; equal reasons stand here once"""
    kinds: frozenset[FactKind] = USUAL_KINDS
    """the kinds of facts that were watched; facts of other kinds may be absent for that reason"""
    images: tuple[str, ...] = ()

    @property
    def has_gaps(self) -> bool:
        """True if the container may have done more than the facts say."""
        return self.complete_runs < self.runs

    def plus(self, other: "Coverage") -> "Coverage":
        """The coverage of two runs together."""
        return Coverage(
            self.pods + other.pods,
            self.runs + other.runs,
            self.complete_runs + other.complete_runs,
            tuple(dict.fromkeys((*self.incomplete, *other.incomplete))),
            self.kinds | other.kinds,
            tuple(sorted({*self.images, *other.images})),
        )


@dataclass(frozen=True)
class LearnedName:
    """A name that differed by chance between runs of one job. It is replaced before facts are compared."""

    of: str
    """path, or name (of DNS)"""
    match: str
    """expression of RE2 for the whole text; the first two groups stay, and the third is what follows"""

    def applied(self, text: str) -> str:
        return _compiled(self.match).sub(r"\1<random>\2\3", text)


_compiled = lru_cache(compile_pattern)


@dataclass(frozen=True)
class WatchedRun:
    """One period of watching."""

    began: str
    """RFC 3339"""
    seconds: float
    lost: int = 0
    """events that are missing"""
    nodes: int = 1


@dataclass(frozen=True)
class Behavior:
    """The facts of some runs."""

    facts: tuple[Fact, ...] = ()
    """sorted, none twice"""
    coverage: Mapping[Unit, Coverage] = field(default_factory=dict)
    """of all containers that were watched, also of those without facts"""
    runs: tuple[WatchedRun, ...] = ()
    missing: tuple[str, ...] = ()
    """what was not watched at all, so that whole workloads may be absent: a node that failed"""
    learned: tuple[LearnedName, ...] = ()
    """names that differ by chance"""

    @property
    def has_syscalls(self) -> bool:
        """True if system calls were watched; they are not by default."""
        return any(FactKind.SYSCALL in found.kinds for found in self.coverage.values())

    def of(self, unit: Unit) -> Iterator[Fact]:
        return (fact for fact in self.facts if fact.unit == unit)

    def renamed(self, workloads: Mapping[Workload, Workload]) -> "Behavior":
        """The same facts, of other workloads."""

        def new(workload: Workload) -> Workload:
            return workloads.get(workload, workload)

        coverage: dict[Unit, Coverage] = {}
        for unit, found in self.coverage.items():
            to = Unit(new(unit.workload), unit.container)
            coverage[to] = coverage[to].plus(found) if to in coverage else found
        return replace(self, facts=merged(replace(f, workload=new(f.workload)) for f in self.facts), coverage=coverage)


def merged(facts: Iterable[Fact]) -> tuple[Fact, ...]:
    """The facts sorted, with equal ones of different pods and runs merged."""
    found: dict[Fact, Fact] = {}
    for fact in facts:
        known = found.get(fact)
        found[fact] = fact if known is None else _both(known, fact)
    return tuple(sorted(found.values(), key=lambda fact: fact.order))


def _both(one: Fact, other: Fact) -> Fact:
    # An unknown time is later than every other, so that the row that is kept belongs to the time.
    first = min(one, other, key=lambda fact: (not fact.first_seen, fact.first_seen))
    return replace(
        first,
        pods=one.pods + other.pods,
        runs=one.runs + other.runs,
        count=one.count + other.count,
        images=tuple(sorted({*one.images, *other.images})),
    )


def merge(behaviors: Iterable[Behavior]) -> Behavior:
    """The behavior in all of these runs together. They must be different runs."""
    each = list(behaviors)
    coverage: dict[Unit, Coverage] = {}
    for behavior in each:
        for unit, found in behavior.coverage.items():
            coverage[unit] = coverage[unit].plus(found) if unit in coverage else found
    return Behavior(
        merged(fact for behavior in each for fact in behavior.facts),
        coverage,
        tuple(sorted((run for behavior in each for run in behavior.runs), key=lambda run: run.began)),
        tuple(dict.fromkeys(text for behavior in each for text in behavior.missing)),
        tuple(dict.fromkeys(rule for behavior in each for rule in behavior.learned)),
    )
