"""Turns rows of gadgets into the facts of one run.

Rows are dictionaries as in JSON output, in order of time, with their gadget as `event`. Names of workloads and of other
ends come at the end of the run, when everything is known, so that they do not depend on when the cluster answered. A
container may do millions of different things; above a limit they are only counted, and it is incomplete.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from kubectl_gadget.behavior.comparison import ANYTHING, stands_alone
from kubectl_gadget.behavior.facts import (
    PATHS,
    READ,
    Behavior,
    Coverage,
    Fact,
    FactKind,
    Unit,
    WatchedRun,
    merged,
    path_parts,
)
from kubectl_gadget.behavior.generalization import Destinations, Generalizer
from kubectl_gadget.behavior.programs import PodContainer, Row, unit_of
from kubectl_gadget.behavior.row_facts import FOLDED, KINDS, SANDBOX, Began, RowFacts, SeenNames
from kubectl_gadget.kube.inventory import Inventory


@dataclass
class Sighting:
    """One fact's counts, which change with each row. `plus` adds the counts of the same fact in other pods."""

    first: str
    """RFC 3339, always with as many digits, so that texts are in order of time"""
    row: Mapping[str, Any]
    pods: frozenset[str]
    images: frozenset[str] = frozenset()
    count: int = field(default=1)

    def again(self, first: str) -> None:
        """Counts another row of the same pod; `first`: its time. Rows come nearly in order of time."""
        self.count += 1
        self.first = min(self.first, first)

    def plus(self, other: "Sighting") -> "Sighting":
        """Merges two sightings of one fact."""
        first = min(self, other, key=lambda seen: seen.first)
        return Sighting(
            first.first, first.row, self.pods | other.pods, self.images | other.images, self.count + other.count
        )


# Opened paths, by program and access. A directory becomes DIR/* when more different names of it are opened than the
# rules allow, and DIR/* then stands for everything below. The trap: the result must not depend on the order of opens,
# and a hostile program may open millions of names; so a directory that has become DIR/* forgets its names, and the
# topmost such directory wins.

_WILD = "*"


@dataclass
class _Directory:
    names: dict[str, "_Directory"] = field(default_factory=dict)
    seen: Sighting | None = None
    """of the path that ends here"""
    everything: Sighting | None = None
    """set once the directory has become DIR/*"""


class OpenedPaths:
    """Paths with what is known about each. Relative paths are kept as they are."""

    def __init__(self, generalizer: Generalizer, access: str = READ, kind: FactKind = FactKind.OPEN) -> None:
        self._generalizer = generalizer
        self._access = access
        self._kind = kind
        self._root = _Directory()
        self._others: dict[str, Sighting] = {}

    def add(self, path: str, seen: Sighting) -> bool:
        """Adds a generalized path, or a pattern of another OpenedPaths. Returns whether the path stands for itself."""
        if (
            not path.startswith("/")
            or self._generalizer.is_sensitive(path)
            or (not path.endswith(ANYTHING) and stands_alone(self._kind, f"{self._access} {path}"))
        ):
            self._others[path] = self._others[path].plus(seen) if path in self._others else seen
            return True
        here, parts = self._root, path.split("/")[1:]
        for depth, name in enumerate(parts):
            if here.everything is not None:
                here.everything = here.everything.plus(seen)
                return False
            if name == _WILD and depth == len(parts) - 1:
                self._close(here, seen)
                return False
            following = here.names.get(name)
            if following is None:
                following = here.names[name] = _Directory()
                if self._is_many(here, parts[:depth]):
                    self._close(here, seen)
                    return False
            here = following
        # A directory that is DIR/* may be opened itself.
        here.seen = seen if here.seen is None else here.seen.plus(seen)
        return True

    def __iter__(self) -> Iterator[tuple[str, Sighting]]:
        yield from self._others.items()
        yield from _walk(self._root, "")

    def _is_many(self, here: _Directory, parts: list[str]) -> bool:
        rules = self._generalizer.rules
        return len(here.names) > rules.most_names > 0 and f"/{'/'.join(parts)}" not in rules.never

    def _close(self, here: _Directory, seen: Sighting) -> None:
        for _, found in _walk(here, ""):
            if found is not here.seen:
                seen = seen.plus(found)
        here.names, here.everything = {}, seen


def _walk(here: _Directory, path: str) -> Iterator[tuple[str, Sighting]]:
    if here.seen is not None:
        yield path or "/", here.seen
    if here.everything is not None:
        yield path + ANYTHING, here.everything
    for name, following in here.names.items():
        yield from _walk(following, f"{path}/{name}")


# The collection

_EVIDENCE = (
    *("timestamp", "node", "pod", "pid", "comm", "exe", "args", "path", "flags", "error", "remote", "remote_port"),
    *("port", "to", "mode", "owner", "group", "attribute", "sha256"),
    *("name", "rcode", "addresses", "operation", "capability", "new_capabilities", "code", "signal", "syscall"),
)
_NO_NAMES = SeenNames()
_NOTHING = Sighting("~", {}, frozenset(), count=0)
"""later than every time, so that only its count has an effect"""
_LONGEST = 200
ALREADY_RUNNING = "it was already running when watching began, so its start was not seen"
"""the reason for a container that is incomplete for no other reason"""
UNKNOWN_PROGRAM = "some of its events were left out, because their program is unknown"
"""another one: the start of a process was lost"""
MOST_FACTS = 20_000
"""limit for one container of one pod"""


class Watched(NamedTuple):
    """A container that existed during the run."""

    place: PodContainer
    image: str
    earlier: bool
    """it ran before it was watched"""
    of_run: bool = False
    """it is what the run was made for, so that it begins with the run, whatever its starter did before"""


@dataclass
class _Container:
    images: set[str] = field(default_factory=set)
    seen: dict[tuple[FactKind, str, Any], Sighting] = field(default_factory=dict)
    opened: dict[tuple[FactKind, str, str], OpenedPaths] = field(default_factory=dict)
    """by kind, program, and what is done to the paths"""
    repeated: dict[tuple[FactKind, str, Any], int] = field(default_factory=dict)
    """how often the same was opened again"""
    overflow: int = 0

    def size(self) -> int:
        return len(self.seen) + len(self.repeated)

    def open(self, kind: FactKind, program: str, value: str, seen: Sighting, generalizer: Generalizer) -> bool:
        """True if the path is not part of DIR/*."""
        access, path = path_parts(kind, value)
        paths = self.opened.get((kind, program, access))
        if paths is None:
            paths = self.opened[kind, program, access] = OpenedPaths(generalizer, access, kind)
        return paths.add(path, seen)


@dataclass(frozen=True)
class RunEnd:
    """The result of a run."""

    inventory: Inventory
    watched: Sequence[Watched]
    run: WatchedRun
    incomplete: tuple[str, ...] = ()
    """why every container of the run is incomplete"""
    missing: tuple[str, ...] = ()
    """what was not watched at all"""


class Collection:
    """Collects the rows of one run. `events` are the gadgets that ran; what they saw before it `began` is no fact."""

    def __init__(self, generalizer: Generalizer, events: Iterable[str], began: Began = lambda: "") -> None:
        self._generalizer = generalizer
        self._events = [event for event in events if event in KINDS]
        self._rows = RowFacts(generalizer, self._take, "process" in self._events, began)
        self._containers: defaultdict[PodContainer, _Container] = defaultdict(_Container)

    @property
    def kinds(self) -> frozenset[FactKind]:
        """The kinds of facts that the run watches. Without processes, programs are known by their names only."""
        return frozenset(kind for event in self._events for kind in KINDS[event])

    def add(self, rows: Iterable[Row]) -> None:
        self._rows.add(rows)

    def _take(self, place: PodContainer, row: Row, kind: FactKind, program: str, value: Any) -> None:
        container = self._containers[place]
        if row["image"]:
            container.images.add(row["image"])
        key = kind, program, value
        known = container.seen.get(key)
        if known is not None:
            known.again(row["timestamp"])
        elif key in container.repeated:
            container.repeated[key] += 1
        elif container.size() >= MOST_FACTS:
            container.overflow += 1
        elif kind in PATHS and value.startswith(FOLDED):
            if container.open(kind, program, value, _sighting(row), self._generalizer):
                container.repeated[key] = 0
        else:
            container.seen[key] = _sighting(row)

    def behavior(self, end: RunEnd, wanted: Callable[[PodContainer], bool] = lambda _: True) -> Behavior:
        self._rows.finish()
        destinations = Destinations(end.inventory, self._generalizer)
        for place, names in self._rows.names.items():
            for address in names.addresses:
                destinations.learn(address, unit_of(place, end.inventory, self._generalizer).workload)
        units = {place: unit_of(place, end.inventory, self._generalizer) for place in self._containers if wanted(place)}
        end = replace(end, watched=[item for item in end.watched if wanted(item.place)])
        found: dict[tuple[Unit, FactKind, str, str], Sighting] = {}
        for place, unit in units.items():
            for kind, program, value, seen in self._seen(place, destinations):
                key = unit, kind, program, value
                found[key] = found[key].plus(seen) if key in found else seen
        facts = [_fact(*key, seen) for key, seen in found.items()]
        return Behavior(merged([*facts, *self._opens(units)]), self._coverage(units, end), (end.run,), end.missing)

    def _seen(self, place: PodContainer, destinations: Destinations) -> Iterator[tuple[FactKind, str, str, Sighting]]:
        names = self._rows.names.get(place, _NO_NAMES)
        for kind, _, value in self._containers[place].seen:
            if kind is FactKind.RESOLVE:
                names.is_attempt(value)  # which are attempts is known only after all
        for (kind, program, value), seen in self._containers[place].seen.items():
            if kind is FactKind.CONNECT:
                yield kind, program, destinations.text(*value), seen
            elif kind is not FactKind.RESOLVE:
                yield kind, program, value, seen
            elif not names.is_attempt(value):
                yield kind, program, self._generalizer.name(value), seen

    def _opens(self, units: Mapping[PodContainer, Unit]) -> Iterator[Fact]:
        """The opens of all pods of a container, merged: a directory may exceed the limit of names only in all pods
        together."""
        together: dict[tuple[Unit, FactKind, str, str], OpenedPaths] = {}
        for place in units:
            container = self._containers[place]
            for (kind, program, access), paths in container.opened.items():
                key = units[place], kind, program, access
                into = together.setdefault(key, OpenedPaths(self._generalizer, access, kind))
                for path, seen in paths:
                    into.add(path, seen)
            for (kind, program, value), count in container.repeated.items():
                access, path = path_parts(kind, value)
                if count:
                    together[units[place], kind, program, access].add(path, replace(_NOTHING, count=count))
        for (unit, kind, program, access), paths in together.items():
            for path, seen in paths:
                yield _fact(unit, kind, program, f"{access} {path}", seen)

    def _coverage(self, units: Mapping[PodContainer, Unit], end: RunEnd) -> dict[Unit, Coverage]:
        watched = [item for item in end.watched if item.place[2] and item.place[2] != SANDBOX]
        places = {item.place: unit_of(item.place, end.inventory, self._generalizer) for item in watched} | dict(units)
        early = self._rows.earlier
        begun = {places[item.place] for item in watched if item.of_run or not (item.earlier or item.place in early)}
        unjoined = {places[place] for place in self._rows.unjoined() if place in places}
        images: dict[Unit, set[str]] = {}
        pods: dict[Unit, set[PodContainer]] = {}
        overflow: dict[Unit, int] = {}
        for place, unit in places.items():
            found = self._containers.get(place, _Container())
            images.setdefault(unit, set()).update(found.images)
            pods.setdefault(unit, set()).add(place)
            overflow[unit] = overflow.get(unit, 0) + found.overflow
        for item in watched:
            images[places[item.place]] |= {item.image} - {""}
        covered = {}
        for unit, several in pods.items():
            reasons = list(self._reasons(unit in begun, unit in unjoined, overflow[unit]))
            covered[unit] = self._covered(len(several), images[unit], [*end.incomplete, *reasons])
        return covered

    def _reasons(self, begun: bool, unjoined: bool, overflow: int) -> Iterator[str]:
        """Yield why a container is incomplete."""
        if not begun:
            yield ALREADY_RUNNING
        if unjoined:
            yield UNKNOWN_PROGRAM
        if overflow:
            yield f"it does more than {MOST_FACTS:,} different things, and {overflow:,} of them were left out"

    def _covered(self, pods: int, images: set[str], reasons: Sequence[str]) -> Coverage:
        return Coverage(pods, 1, 0 if reasons else 1, tuple(reasons), self.kinds, tuple(sorted(images)))


def _fact(unit: Unit, kind: FactKind, program: str, value: str, seen: Sighting) -> Fact:
    return Fact(
        unit.workload,
        unit.container,
        kind,
        program,
        value,
        len(seen.pods),
        1,
        seen.count,
        seen.first,
        seen.row,
        tuple(sorted(seen.images)),
    )


def _sighting(row: Row) -> Sighting:
    pod = f"{row['namespace']}/{row['pod']}/{row['container']}"
    kept = {name: _short(row[name]) for name in _EVIDENCE if row.get(name) not in (None, "", [])}
    return Sighting(row["timestamp"], kept, frozenset({pod}), frozenset({row["image"]} - {"", None}))


def _short(value: object) -> object:
    if isinstance(value, str):
        return value if len(value) <= _LONGEST else f"{value[:_LONGEST]}…"
    return [_short(each) for each in value[:20]] if isinstance(value, list | tuple) else value
