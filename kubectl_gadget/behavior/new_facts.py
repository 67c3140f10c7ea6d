"""Finds facts that are not in a baseline while they happen: the transform of `behavior check`, and its rows.

Repeated rows are dropped as early as possible: an open that the same process did before, with the same path and the
same result, never becomes a dictionary. What a process does belongs to its program, so its known opens are forgotten
when it executes another one, or when its number belongs to another process.

The rows belong to a gadget whose record exists only here (new_facts.yaml), so filters, conditions and all formats work
on them. Their times are wall times already, so the clock's offset is 0.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kubectl_gadget.behavior.comparison import ANYTHING, Change, KnownFacts, new_change, stands_alone, without_chance
from kubectl_gadget.behavior.facts import PATHS, Behavior, Fact, FactKind, Unit, path_parts
from kubectl_gadget.behavior.generalization import Destinations, Generalizer
from kubectl_gadget.behavior.programs import PodContainer, Row, unit_of
from kubectl_gadget.behavior.risk import programs
from kubectl_gadget.behavior.row_facts import COLUMNS, FOLDED, Began, MadePath, RowFacts
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.kube.inventory import Inventory
from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.rows.batch import Batch, decode
from kubectl_gadget.rows.containers import Container
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.views import RowWriter, made_gadget, place

_TEXTS = ("comm", "level", "risk", "kind", "program", "value", "text", "attack", "workload", "fact", "doubt")
GADGET = made_gadget(Path(__file__).with_suffix(".yaml"))


@dataclass(frozen=True)
class NewFact:
    """A change and the event that it was seen in."""

    change: Change
    time: int
    """wall time in ns"""
    node: str
    container: Container
    pid: int
    comm: str


def row_batch(found: Sequence[NewFact]) -> Batch:
    writer = RowWriter(GADGET.record)
    for item in found:
        change, fact = item.change, item.change.fact
        risk, what = change.risk, (fact.program, fact.value, change.says, " ".join(change.techniques))
        texts = (item.comm, risk.level, risk.name, str(fact.kind), *what, str(fact.workload), fact.id, change.doubt)
        values = dict(zip(_TEXTS, texts, strict=True))
        writer.add(b"", item.time, {"pid": item.pid, "other_image": change.other_image, **values})
    batch = decode(GADGET, "", writer.take())
    place(batch, (item.node for item in found), (item.container for item in found))
    return batch


_OPENS, _PROCESSES = "trace_open", "trace_process"
_MOST_KNOWN = 500_000
"""opens that are remembered; beyond this, all are forgotten and judged again"""
MOST_NEW = 20_000
"""new facts of one container of a workload"""
_OWNER = "(owner)"
"""what a row gets for its fact, which may be found later: its wall time and its container"""


class NewFacts:
    """Rows in, rows of new facts out, each once for a container of a workload."""

    gadget: Gadget = GADGET

    def __init__(
        self,
        baseline: Behavior,
        generalizer: Generalizer,
        inventory: Callable[[], Inventory] = Inventory,
        as_workload: Callable[[Unit], Unit] = lambda unit: unit,
        began: Began = lambda: "",
    ) -> None:
        """`inventory` returns the cluster's objects as they are now; `as_workload` gives the unit of the baseline that
        another one is to be compared with; facts count from when the run `began`."""
        self._baseline = baseline
        self._generalizer = generalizer
        self._inventory = inventory
        self._as_workload = as_workload
        self._known = KnownFacts(baseline.facts)
        self._ran = set(programs(baseline.facts))
        self._new: set[Fact] = set()
        self._new_of: dict[Unit, int] = {}
        """the number of new facts, up to one more than are shown"""
        self._names: dict[tuple[Unit, str, str], set[str]] = {}
        """new names in a directory, by program and access and directory"""
        self._facts = RowFacts(generalizer, self._take, began=began, holds=False)
        self._members = MemberRows(COLUMNS, event=True)
        self._opens: dict[tuple[str, int], set[bytes]] = {}
        self._opens_known = 0
        self._found: list[NewFact] = []
        self._units: dict[PodContainer, Unit] = {}
        self._known_inventory: Inventory | None = None
        self._destinations: Destinations | None = None
        self.judged = 0
        """rows that were judged one by one"""

    def notes(self) -> Iterator[str]:
        """Notes for the user at the end."""
        for unit in sorted(self._new_of.keys() - self._baseline.coverage.keys(), key=str):
            yield f"{unit} is not in the baseline"
        for unit, count in sorted(self._new_of.items(), key=lambda item: str(item[0])):
            if count > MOST_NEW:
                yield f"{unit} does more than {MOST_NEW:,} new things: what else it did that is new was not shown"

    def apply(self, rows: Rows) -> Rows:
        self._forget_programs(rows)
        items = rows.collect(self._read)
        found = self.judge([item for item in items if item is not None])
        return Rows([row_batch(found)]) if found else Rows([])

    def judge(self, dictionaries: Sequence[tuple[Row, Container, int]]) -> list[NewFact]:
        """The new facts in rows with their containers and wall times."""
        self.judged += len(dictionaries)
        inventory = self._inventory()
        if inventory is not self._known_inventory:
            self._known_inventory, self._destinations = inventory, Destinations(inventory, self._generalizer)
            self._units.clear()
        self._found = []
        self._facts.add({**row, _OWNER: (time, container)} for row, container, time in dictionaries)
        return self._found

    def _forget_programs(self, rows: Rows) -> None:
        """Forgets the opens of processes that begin, or begin another program, in these rows."""
        for part in rows.parts:
            if part.gadget.name == _PROCESSES and self._opens:
                for key in zip(part.nodes(), part.raw("pid").tolist(), strict=True):
                    self._opens_known -= len(self._opens.pop(key, ()))

    def _read(self, batch: Batch) -> list[tuple[Row, Container, int] | None]:
        wanted: npt.NDArray[np.bool_] | None = None
        if batch.gadget.name == _OPENS:
            wanted = self._unknown_opens(batch)
            if not wanted.any():
                return [None] * len(batch)
            part = batch.select(wanted)
        else:
            part = batch
        found = list(zip(self._members.records_of(part), part.row_containers(), part.wall_ns().tolist(), strict=True))
        if wanted is None:
            return list(found)
        left = iter(found)
        return [next(left) if is_wanted else None for is_wanted in wanted.tolist()]

    def _unknown_opens(self, batch: Batch) -> npt.NDArray[np.bool_]:
        """Return a mask of the opens that the same process has not made before."""
        if self._opens_known > _MOST_KNOWN:
            self._opens.clear()
            self._opens_known = 0
        keys = _keys_of_opens(batch)
        found = np.zeros(len(batch), np.bool_)
        for row, (node, pid, key) in enumerate(zip(batch.nodes(), batch.raw("pid").tolist(), keys, strict=True)):
            known = self._opens.get((node, pid))
            if known is None:
                known = self._opens[node, pid] = set()
            if key not in known:
                known.add(key)
                self._opens_known += 1
                found[row] = True
        return found

    def _take(self, place: PodContainer, row: Row, kind: FactKind, program: str, value: Any) -> None:
        if kind is FactKind.RESOLVE and self._facts.names[place].is_attempt(value):
            return
        assert self._destinations is not None
        if kind is FactKind.CONNECT:
            value = self._destinations.text(*value)
        elif kind is FactKind.RESOLVE:
            value = self._generalizer.name(value)
        unit, temporary = self._unit(place), tuple[str, ...]()
        if isinstance(value, MadePath):
            value, temporary = value
        images = (row["image"],) if row["image"] else ()
        fact = Fact(unit.workload, unit.container, kind, program, value, first_seen=row["timestamp"], images=images)
        fact = without_chance(fact, self._baseline.learned)
        before = self._baseline.coverage.get(unit)
        if fact in self._new or self._known.has(fact) or (before is not None and kind not in before.kinds):
            return
        others = (without_chance(replace(fact, value=each), self._baseline.learned) for each in temporary)
        if any(map(self._known.has, others)):
            return
        count = self._new_of.get(unit, 0) + 1
        if count > MOST_NEW:
            self._new_of[unit] = MOST_NEW + 1
            return
        if kind in PATHS and (fact := self._narrowed(fact)) in self._new:
            return
        self._new.add(fact)
        self._new_of[unit] = count
        change = new_change(fact, before, self._ran, self._known.versions_before(fact))
        time, container = row[_OWNER]
        self._found.append(NewFact(change, time, row["node"], container, row["pid"], row["comm"] or ""))
        # From here on the program is known, so that it is reported once.
        self._ran.add((fact.unit, fact.program))

    def _narrowed(self, fact: Fact) -> Fact:
        """The fact, or the pattern of its directory once the program has opened many new names there."""
        access, path = path_parts(fact.kind, fact.value)
        directory = path.rpartition("/")[0]
        rules = self._generalizer.rules
        if not fact.value.startswith(FOLDED) or (directory or "/") in rules.never:
            return fact
        if self._generalizer.is_sensitive(path) or stands_alone(fact.kind, fact.value):
            return fact
        names = self._names.setdefault((fact.unit, fact.program, f"{access} {directory}"), set())
        if len(names) < rules.most_names:
            names.add(path)
            return fact
        return replace(fact, value=f"{access} {directory}{ANYTHING}")

    def _unit(self, place: PodContainer) -> Unit:
        found = self._units.get(place)
        if found is None:
            assert self._known_inventory is not None
            found = self._units[place] = self._as_workload(unit_of(place, self._known_inventory, self._generalizer))
        return found


def _keys_of_opens(batch: Batch) -> Iterable[bytes]:
    """For each open, bytes that are equal where path, resolved path, flags, contents and result are equal."""
    record = batch.gadget.record
    names = [name for name in ("errno", "flags", "sha256") if any(name == field.name for field in record.fields)]
    numbers = np.stack([batch.raw(name).astype(np.uint64) for name in names], axis=1).tobytes()
    texts = []
    for name in ("path", "resolved"):
        field = record.field(name)
        spans = batch.spans(field)
        data = batch.buffer.bytes.data
        pairs = zip(spans.starts.tolist(), (spans.starts + spans.lengths).tolist(), strict=True)
        texts.append([data[start:end].tobytes() for start, end in pairs])
    size = 8 * len(names)
    heads = (numbers[place : place + size] for place in range(0, len(numbers), size))
    return map(b"\0".join, zip(heads, *texts, strict=True))
