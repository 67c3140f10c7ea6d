"""Observations: rows and records that match a rule's set, counted by owner and by the set's columns.

Conditions run on whole columns; only rows that match become Python objects. Memory is bounded: a set and a container
have a fixed number of observations, and a row a fixed number of values. What finds no room is counted, and `run.whole`
is false then.

In a full container, new ones get room: neither a flood nor time removes what a finding is made of (docs/design).

A snapshot's rows are another matter: the rows of its latest turn count, and the rows of its first turn are `before`.
"""

import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kubectl_gadget.diagnose.rules import Rule, SeenSet
from kubectl_gadget.filters.filter import Filter, RowProgram
from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.rows.batch import TURN, Batch
from kubectl_gadget.rows.containers import Container
from kubectl_gadget.rows.members import filter_members
from kubectl_gadget.rows.rows import Rows

MOST_KEYS = 256
"""Observations of one set in one container. A scan of 65,536 ports is one cause."""
MOST_OWNERS = 50_000
"""Containers with observations of one set."""
_OLD_NS = 10_000_000_000
"""Age at which an observation that no finding needs makes room: what rules join with it happens soon, or not at all."""
_FIRST_OF_OWNER, _FIRST_OF_CROWD = 64, 4
"""The number of first observations that never make room."""
_LOOK_NS, _NO_ROOM_NS = 2_000_000_000, 100_000_000
"""Time between two looks at which observations findings need, and before a full container is asked for room again."""
EVIDENCE = 3
_LONGEST = 400
"""Characters of a value that is kept."""
_TURN_NS = 2_000_000_000
"""If turns have no numbers, rows this much younger than a snapshot's first row belong to the next turn."""
_NUMBERED_TURN_NS = 10_000_000_000
"""A busy node may take seconds for one turn; after that time, the same number belongs to another stream."""

Record = Mapping[str, Any]
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Owner:
    """The owner of an observation. Empty texts: does not apply."""

    node: str = ""
    namespace: str = ""
    pod: str = ""
    container: str = ""

    @classmethod
    def of(cls, node: str, container: Container) -> "Owner":
        return cls(node, container.namespace, container.pod, container.container)

    @classmethod
    def receiver(cls, node: str, record: Record) -> "Owner":
        """Return the owner of a signal's receiver."""
        return cls(node, *(str(record.get(f"receiver_{name}") or "") for name in ("namespace", "pod", "container")))


@dataclass(frozen=True)
class Evidence:
    """One row of a gadget, or one record of the API."""

    record: Record
    """its members, without those that it does not have"""
    row: Rows | None = None
    """None: a record of the API"""


@dataclass
class Observation:
    """Rows of one set in one container, with one value of the set's columns."""

    owner: Owner
    key: Key
    count: int = 0
    first_ns: int = 0
    last_ns: int = 0
    rows: list[Evidence] = field(default_factory=list)
    """the first ones"""
    sums: dict[str, float] = field(default_factory=dict)
    most: dict[str, float] = field(default_factory=dict)
    before: int = 0
    """of a snapshot: how many there were in its first turn"""
    sums_before: dict[str, float] = field(default_factory=dict)
    turn: int = 0
    turns: str = ""
    """of a snapshot: the key of its turns, node and look"""
    is_needed: bool = False
    """a finding is made of it"""

    @property
    def record(self) -> Record:
        """Return the first row, without what it does not have."""
        return self.rows[0].record if self.rows else {}

    def add(self, record: Record, wall_ns: int, measure: Iterable[str], times: int = 1) -> None:
        """Count a row or a record. `times`: how often it happened."""
        if not self.count or wall_ns < self.first_ns:
            self.first_ns = wall_ns
        self.count += times
        self.last_ns = max(self.last_ns, wall_ns)
        if len(self.rows) < EVIDENCE:
            self.rows.append(Evidence(record))
        for name in measure:
            if isinstance(value := record.get(name), int | float):
                self.sums[name] = self.sums.get(name, 0) + value
                self.most[name] = max(self.most.get(name, value), value)


class Watch:
    """One set of one or more rules, with what was seen of it."""

    def __init__(self, seen: SeenSet, look: Callable[[int], object] = int) -> None:
        """`look` marks the observations that findings need; its argument is the time."""
        self.seen = seen
        self.found: dict[Owner, dict[Key, Observation]] = {}
        self.dropped = 0
        self.full = set[Owner]()
        """containers with observations that found no room: absence proves nothing there"""
        self._look = look
        self._no_room: dict[Owner, int] = {}
        self._turns: dict[str, list[tuple[int | None, int]]] = {}
        """of a snapshot, by node: the number and the time of the first row of each turn"""

    def __iter__(self) -> Iterator[Observation]:
        for of_owner in self.found.values():
            yield from of_owner.values()

    def of(self, owner: Owner, key: Key, wall_ns: int = 0) -> Observation | None:
        """Return the observation, a new one if there is room."""
        of_owner = self.found.get(owner)
        if of_owner is None:
            if len(self.found) >= MOST_OWNERS:
                self.dropped += 1
                return None
            of_owner = self.found[owner] = {}
        found = of_owner.get(key)
        if found is None:
            if len(of_owner) >= MOST_KEYS and not self._make_room(owner, of_owner, wall_ns):
                self.dropped += 1
                self.full.add(owner)
                return None
            found = of_owner[key] = Observation(owner, key)
        return found

    def _make_room(self, owner: Owner, of_owner: dict[Key, Observation], wall_ns: int) -> bool:
        """Remove what no finding needs; True if it did. Of sets by process, that does not count as lost."""
        if self.is_snapshot or self.seen.gadget is None or wall_ns < self._no_room.get(owner, 0):
            return False
        self._look(wall_ns)
        is_of_processes = "pid" in self.seen.by
        crowd: Sequence[Key] = ()
        if is_of_processes:
            crowds = Counter(place_and_value for key in of_owner for place_and_value in enumerate(key))
            (place, value), _ = crowds.most_common(1)[0]
            crowd = [key for key in of_owner if key[place] == value]
        middle = crowd[_FIRST_OF_CROWD : len(crowd) // 2]
        old = list(of_owner.items())[min(_FIRST_OF_OWNER, MOST_KEYS // 4) :]
        gone = [key for key in middle if not of_owner[key].is_needed] or [
            key for key, each in old if not each.is_needed and each.last_ns < wall_ns - _OLD_NS
        ]
        for key in gone:
            del of_owner[key]
        if not gone:
            self._no_room[owner] = wall_ns + _NO_ROOM_NS
        elif not is_of_processes:
            self.dropped += len(gone)
            self.full.add(owner)
        return bool(gone)

    @property
    def is_snapshot(self) -> bool:
        return self.seen.gadget is not None and self.seen.gadget.kind == "snapshot"

    def found_by(
        self, owner: Owner, record: dict[str, object], wall_ns: int, look: str = "", number: int | None = None
    ) -> Observation | None:
        """Return the observation that a row belongs to, at its turn of a snapshot; None if there is no room. `number`:
        the turn's, if it is known."""
        seen = self.seen
        if "base" in seen.by:
            record["base"] = posixpath.basename(str(record.get("path") or ""))
        owner = Owner.receiver(owner.node, record) if seen.is_receivers else owner
        found = self.of(owner, tuple(_kept(record.get(name)) for name in seen.by), wall_ns)
        if found is not None and self.is_snapshot:
            found.turns = f"{owner.node}{look}"
            turn = self.turn(found.turns, wall_ns, number)
            if turn != found.turn:
                if not found.turn:
                    found.before, found.sums_before = found.count, found.sums
                found.turn, found.count, found.rows, found.sums, found.most = turn, 0, [], {}, {}
            elif not turn:
                found.before = found.count + 1
        return found

    def turned(self, turns_of: str, wall_ns: int, number: int | None = None) -> None:
        """Record that a snapshot of this node has a row of this time."""
        if self._place(turns_of, wall_ns, number) is None:
            self._turns.setdefault(turns_of, []).append((number, wall_ns))

    def turn(self, turns_of: str, wall_ns: int, number: int | None = None) -> int:
        """Return the place of the snapshot that a row of this time belongs to, from 0."""
        return self._place(turns_of, wall_ns, number) or 0

    def _place(self, turns_of: str, wall_ns: int, number: int | None) -> int | None:
        """Agents number turns, from 0 again when a node reconnects; examples do not."""
        longest = _TURN_NS if number is None else _NUMBERED_TURN_NS
        turns = self._turns.get(turns_of, ())
        for place in reversed(range(len(turns))):
            if turns[place][0] == number and abs(wall_ns - turns[place][1]) <= longest:
                return place
        return None

    def latest(self, turns_of: str) -> int:
        """Return the number of a node's latest snapshot."""
        return max(0, len(self._turns.get(turns_of, ())) - 1)


class Observations:
    """All that was seen of the sets of some rules. `take` is called from the pipeline's thread."""

    def __init__(self, rules: Sequence[Rule], look: Callable[[int], object] = int) -> None:
        self._look = look
        self._looked_ns = 0
        self._watches: dict[tuple[object, ...], Watch] = {}
        self._by_gadget: dict[str, list[tuple[Watch, SeenSet]]] = {}
        self._by_object: dict[str, list[Watch]] = {}
        self.rows = 0
        """how many rows were looked at"""
        for rule in rules:
            for seen in rule.seen:
                self._watch(seen)
        self._members = MemberRows(event=True)
        self._columns: dict[str, list[str]] = {}

    @property
    def is_whole(self) -> bool:
        """True if every observation found room."""
        return not any(watch.dropped for watch in self._watches.values())

    def of(self, seen: SeenSet) -> Watch:
        """Return what was seen of a rule's set."""
        return self._watches[_identity(seen)]

    def _watch(self, seen: SeenSet) -> None:
        if _identity(seen) in self._watches:
            return
        watch = self._watches[_identity(seen)] = Watch(seen, self._look_again)
        if seen.gadget is None:
            self._by_object.setdefault(seen.object, []).append(watch)
        for part in (seen, seen.also):
            if part is not None and part.gadget is not None:
                self._by_gadget.setdefault(part.gadget.name, []).append((watch, part))

    def _look_again(self, wall_ns: int) -> None:
        if wall_ns >= self._looked_ns + _LOOK_NS:
            self._looked_ns = wall_ns
            self._look(wall_ns)

    def take(self, rows: Rows, look: str = "") -> None:
        """Count rows of any gadgets. `look`: they are of another look at the same nodes, whose snapshots are others."""
        self.rows += len(rows)
        for batch in rows.parts:
            self._take(batch, look)

    def _take(self, batch: Batch, look: str) -> None:
        """Count the rows of one batch. Rows that no set has stay columns; of the others, only what sets are grouped by
        and measure becomes objects, and evidence all of it."""
        watched = self._by_gadget.get(batch.gadget.name, ())
        is_snapshot = any(watch.is_snapshot for watch, _ in watched)
        if is_snapshot:  # also a turn in which nothing matches is a turn
            turns = set(zip(batch.wall_ns().tolist(), batch.nodes(), batch.raw(TURN).tolist(), strict=True))
            for wall_ns, node, number in sorted(turns):
                for watch, _ in watched:
                    watch.turned(f"{node}{look}", wall_ns, number)
        conditions, all_rows = {seen.where: seen.condition for _, seen in watched}, np.ones(len(batch), bool)
        masks = {
            where: condition.mask(batch) if isinstance(condition, Filter) else all_rows
            for where, condition in conditions.items()
        }
        wanted = np.any([~all_rows, *masks.values()], axis=0)
        if not wanted.any():
            return
        batch = batch.select(wanted)
        numbers: list[Any] = batch.raw(TURN).tolist() if is_snapshot else [None] * len(batch)
        records = self._needed(batch, watched)
        rows = list(zip(batch.row_containers(), batch.nodes(), batch.wall_ns().tolist(), numbers, records, strict=True))
        evidence: dict[int, list[tuple[Observation, Evidence]]] = {}
        for watch, seen in watched:
            for place in np.flatnonzero(masks[seen.where][wanted]).tolist():
                container, node, wall_ns, number, record = rows[place]
                found = watch.found_by(Owner.of(node, container), record, wall_ns, look, number)
                if found is not None:
                    is_evidence = len(found.rows) < EVIDENCE
                    found.add(record, wall_ns, watch.seen.measure)
                    if is_evidence:
                        evidence.setdefault(place, []).append((found, found.rows[-1]))
        self._show(batch, evidence)

    def _needed(self, batch: Batch, watched: Iterable[tuple[Watch, SeenSet]]) -> list[dict[str, Any]]:
        """Return what the sets of a gadget are grouped by and measure, of each row."""
        known, name = filter_members(batch.gadget), batch.gadget.name
        if name not in self._columns:
            wanted = {column for watch, _ in watched for column in (*watch.seen.by, *watch.seen.measure)}
            wanted |= {f"receiver_{part}" for part in ("namespace", "pod", "container")} & set(known)
            self._columns[name] = sorted({"path" if column == "base" else column for column in wanted})
        names = self._columns[name]
        columns = [batch.vector(column, known[column].read).values() for column in names]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)] or [{} for _ in batch.nodes()]

    def _show(self, batch: Batch, evidence: Mapping[int, Iterable[tuple[Observation, Evidence]]]) -> None:
        """Give observations the whole rows that are their evidence."""
        places = np.array(sorted(evidence), np.intp)
        records = self._members.records_of(batch.select(places)) if evidence else []
        for place, record in zip(places.tolist(), records, strict=True):
            whole = Evidence(_slim(record), Rows([batch.select(np.array([place])).compacted()]))
            for found, shown in evidence[place]:
                found.rows = [whole if each is shown else each for each in found.rows]

    def take_records(self, gadget: str, records: Iterable[tuple[Owner, Record, int]], look: str = "") -> None:
        """Count rows that are given as in JSON, with their times: examples of a rule, or what a recording kept of
        another `look`, as in take(). For a snapshot, the rows of all its turns are given together."""
        rows = list(records)
        for watch, seen in self._by_gadget.get(gadget, ()):
            condition = seen.row_condition
            for owner, _, wall_ns in rows if watch.is_snapshot else ():
                watch.turned(f"{owner.node}{look}", wall_ns)
            for owner, record, wall_ns in rows:
                if condition is None or condition.matches(record):
                    found = watch.found_by(owner, dict(record), wall_ns, look)
                    if found is not None:
                        found.add(_slim(record), wall_ns, watch.seen.measure)

    def take_objects(self, kind: str, records: Iterable[Record], wall_ns: int) -> None:
        """Count all present records of the API of one kind; the records of the last call are forgotten. A record has
        `first_ns` and `times` if these are known."""
        watches = self._by_object.get(kind, ())
        for watch in watches:
            watch.found.clear()
        for record in records:
            for watch in watches:
                if _matches(watch.seen, record):
                    owner = Owner(*(str(record.get(name) or "") for name in ("node", "namespace", "pod", "container")))
                    key = tuple(_kept(record.get(name)) for name in watch.seen.by)
                    if (found := watch.of(owner, key)) is not None:
                        first = record.get("first_ns") or wall_ns
                        found.add(record, int(first), watch.seen.measure, int(record.get("times") or 1))


def _identity(seen: SeenSet) -> tuple[object, ...]:
    equal = tuple(sorted((name, values) for name, values in seen.equal.items()))
    name = seen.gadget.name if seen.gadget else ""
    also = _identity(seen.also) if seen.also else ()
    return name, seen.object, seen.where, equal, seen.by, seen.measure, seen.is_receivers, also


def _matches(seen: SeenSet, record: Record) -> bool:
    for name, values in seen.equal.items():
        if str(record.get(name)) not in values:
            return False
    return not isinstance(seen.condition, RowProgram) or seen.condition.matches(record)


def _kept(value: object) -> Any:
    """Return a value in the form in which it is kept as a part of a key."""
    if isinstance(value, str):
        return value if len(value) <= _LONGEST else f"{value[:_LONGEST]}…"
    if isinstance(value, list):
        return tuple(map(_kept, value))
    return str(value)[:_LONGEST] if isinstance(value, dict) else value


def _slim(record: Record) -> dict[str, Any]:
    """Return a row without what it does not have, and with shortened texts."""
    kept = {}
    for name, value in record.items():
        if value in (None, "", -1, []) or name.endswith(("_bytes", "_raw")):
            continue
        kept[name] = list(_kept(value[:50])) if isinstance(value, list) else _kept(value)
    return kept
