"""Tables that are not streams: rows of an interval, a snapshot or a capture are collected, aggregated, sorted and cut.

Sums are exact integers. Rows of several architectures never share a batch, since the same number may have another
meaning, so groups are formed across all batches by the values of their members.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.schema import HISTOGRAM_MAXIMA, PERCENTILES, Gadget
from kubectl_gadget.rows.arrangement import Arrangement
from kubectl_gadget.rows.batch import Batch, join
from kubectl_gadget.rows.histogram import percentiles
from kubectl_gadget.rows.members import column_members, find_column, owner_texts
from kubectl_gadget.rows.rows import NO_ROWS, Collector, Rows

if TYPE_CHECKING:
    from kubectl_gadget.filters.filter import Filter


_FILLED_IN = ("timestamp", "interval")
"""Fields of a total that are neither key nor sum."""
_UNKNOWN = np.uint64(2**64 - 1)
"""An unknown value in rows from an agent's sampler."""


class Block(Rows):
    """The rows of one interval, snapshot or capture; `everything` also has those that --max-rows leaves out."""

    is_block = True

    def __init__(self, rows: Rows, everything: Rows) -> None:
        super().__init__(rows.parts, rows.order)
        self._everything = everything

    @property
    def everything(self) -> Rows:
        return self._everything


def check(arrangement: Arrangement, gadgets: Sequence[Gadget]) -> None:
    """Raises UsageError for columns that do not exist or cannot be aggregated by."""
    for gadget in gadgets:
        for name in (*(item.removeprefix("-") for item in arrangement.sort), *arrangement.by):
            if find_column(gadget, name) is None:
                gadget.column(name)
        if wrong := [name for name in arrangement.by if name in gadget.totals.added_up]:
            raise UsageError(f"--by {wrong[0]}: this column is a sum", "--by with columns that say who or what it is")
        if arrangement.tree and not gadget.table.tree:
            raise UsageError(f"{' '.join(gadget.command)} has no tree")


def shown_columns(arrangement: Arrangement, gadget: Gadget, with_time: bool) -> tuple[str, ...]:
    """The columns to show for rows aggregated `by` some columns: those and the sums; empty if `by` is not set."""
    if not arrangement.by:
        return ()
    found = [
        column.name for column in gadget.columns if column.field in gadget.totals.added_up and column.show == "default"
    ]
    return (*(("timestamp",) if with_time else ()), *arrangement.by, *found)


def added_up_members(gadget: Gadget) -> frozenset[str]:
    """Members that filters may use only after rows have been aggregated."""
    columns = (column for column in gadget.columns if column.field in gadget.totals.added_up)
    return frozenset(member.name for column in columns for member in column_members(gadget, column))


def order_of(arrangement: Arrangement, gadget: Gadget) -> tuple[str, ...]:
    return arrangement.sort or tuple(filter(None, gadget.table.sort.split(",")))


def arrange(batches: Sequence[Batch], arrangement: Arrangement, keep: "Filter | None" = None) -> Block:
    """Arranges the rows that all nodes sent for one interval or snapshot; `keep` filters rows after aggregation."""
    parts = _joined(batches)
    if not parts:
        return Block(NO_ROWS, NO_ROWS)
    gadget = parts[0].gadget
    if gadget.totals.sums:
        parts = add_up(parts, arrangement.by)
    if keep is not None:
        parts = [keep.select(part) for part in parts]
    rows = sort(Rows(parts), gadget, order_of(arrangement, gadget))
    if arrangement.tree:
        rows = as_tree(rows, arrangement.lines)
    return Block(rows if arrangement.max_rows is None else rows.head(arrangement.max_rows), rows)


def condense(batches: Sequence[Batch]) -> list[Batch]:
    """The same rows, with one per node, container and key if the gadget's rows can be aggregated."""
    return add_up(_joined(batches), ()) if batches and batches[0].gadget.totals.sums else list(batches)


def _joined(batches: Sequence[Batch]) -> list[Batch]:
    return [join(list(group)) for _, group in groupby(sorted(batches, key=_kind), key=_kind)]


def _kind(batch: Batch) -> tuple[str, str]:
    return batch.gadget.name, batch.architecture


def add_up(batches: Sequence[Batch], by: Sequence[str]) -> list[Batch]:
    """Aggregates rows with the same key into one row with their sums.

    The key is `by`, or the whole key of the totals with the container in place of its cgroups, of which it may have
    several.
    """
    gadget = batches[0].gadget
    groups: dict[object, int] = {}
    first: list[list[int]] = [[] for _ in batches]
    numbers = []
    for place, batch in enumerate(batches):
        found = []
        for row, key in enumerate(_keys(batch, by)):
            number = groups.get(key)
            if number is None:
                number = groups[key] = len(groups)
                first[place].append(row)
            found.append(number)
        numbers.append(np.array(found, np.intp))
    sums = {name: _zeros(batches[0], name, len(groups)) for name in gadget.totals.sums}
    maxima = {
        name: _zeros(batches[0], name, len(groups)) for name in (HISTOGRAM_MAXIMA if gadget.totals.histogram else ())
    }
    known = {name: np.zeros(len(groups), np.bool_) for name in (gadget.totals.sums if gadget.agent.sampler else ())}
    intervals, ends = (np.zeros(len(groups), np.uint64) for _ in range(2))
    for batch, found_numbers in zip(batches, numbers, strict=True):
        lengths, latest = _intervals(batch)
        for name, total in sums.items():
            values = batch.raw(name).astype(np.uint64)
            counts = _counting(batch, name, values, latest)
            np.add.at(total, found_numbers[counts], values[counts])
            if name in known:
                known[name][found_numbers[counts]] = True
        for name, highest in maxima.items():
            np.maximum.at(highest, found_numbers, batch.raw(name).astype(np.uint64))
        np.maximum.at(intervals, found_numbers, lengths)
        np.maximum.at(ends, found_numbers, latest)
    for name, is_known in known.items():
        sums[name][~is_known] = _UNKNOWN
    made, start = [], 0
    for batch, rows in zip(batches, first, strict=True):
        if not rows:
            continue
        part = batch.select(np.array(rows, np.intp))
        mine = slice(start, start + len(rows))
        for name, total in (sums | maxima).items():
            part.give(name, total[mine])
        part.give("interval", intervals[mine])
        part.give("timestamp", ends[mine])
        fill_in_quotients(part)
        if gadget.totals.histogram:
            fill_in_percentiles(part)
        made.append(part)
        start += len(rows)
    return made


def _counting(
    batch: Batch, name: str, values: npt.NDArray[np.uint64], latest: npt.NDArray[np.uint64]
) -> "npt.NDArray[np.bool_] | slice":
    """Rows that count for a sum: with a sampler, no unknown values, and for gauges only a node's latest rows."""
    if not batch.gadget.agent.sampler:
        return slice(None)
    counts: npt.NDArray[np.bool_] = values != _UNKNOWN
    return counts & (batch.raw("timestamp") == latest) if name in batch.gadget.totals.gauges else counts


def _keys(batch: Batch, by: Sequence[str]) -> "zip[tuple[object, ...]]":
    gadget = batch.gadget
    if by:
        return zip(*(_values(batch, name) for name in by), strict=True)
    others = {*_FILLED_IN, *gadget.totals.added_up, *gadget.totals.describes}
    own = [f.name for f in gadget.record.fields if f.name not in others and f.type != "gadget_cgroup"]
    owner = (_values(batch, name) for name in ("node", "namespace", "pod", "container", "container_id"))
    return zip(*owner, *(batch.raw(name).tolist() for name in own), strict=True)


def _values(batch: Batch, name: str) -> list[Any]:
    column = find_column(batch.gadget, name)
    assert column is not None
    member = column_members(batch.gadget, column)[0]
    return batch.vector(member.name, member.read).values()


def _intervals(batch: Batch) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Total length and end of the intervals that a node's rows cover; it may have sent several."""
    nodes = _values(batch, "node")
    each = set(zip(nodes, batch.raw("timestamp").tolist(), batch.raw("interval").tolist(), strict=True))
    lengths: dict[str, int] = {}
    ends: dict[str, int] = {}
    for node, end, length in each:
        lengths[node] = lengths.get(node, 0) + length
        ends[node] = max(ends.get(node, 0), end)
    of_rows = (np.array([found[node] for node in nodes], np.uint64) for found in (lengths, ends))
    return next(of_rows), next(of_rows)


def fill_in_quotients(batch: Batch) -> None:
    """Computes the fields that the gadget's YAML lists under `quotients`."""
    for item in batch.gadget.totals.quotients:
        of, per = batch.raw(item.of).astype(np.uint64), batch.raw(item.per).astype(np.uint64)
        product = of * np.uint64(item.times)
        quotient = np.where(per == 0, np.uint64(0), product // np.maximum(per, np.uint64(1)))
        batch.give(item.field, np.where(of == _UNKNOWN, of, quotient) if batch.gadget.agent.sampler else quotient)


def fill_in_percentiles(batch: Batch) -> None:
    for name, percent in PERCENTILES.items():
        batch.give(name, percentiles(batch.raw("buckets"), batch.raw("max"), percent))


def _zeros(batch: Batch, field: str, count: int) -> npt.NDArray[np.uint64]:
    """An array of zeros, one element per group, each of the field's size."""
    return np.zeros((count, *batch.raw(field).shape[1:]), np.uint64)


def sort(rows: Rows, gadget: Gadget, columns: Sequence[str]) -> Rows:
    """Sorts rows by these columns; a leading - means descending. Nulls come last."""
    if not len(rows):
        return rows
    order = list(range(len(rows)))
    for item in reversed(columns):
        name = item.removeprefix("-")
        if find_column(gadget, name) is None:
            continue
        values = rows.collect(_reader(name))
        known = [row for row in order if values[row] is not None]
        known.sort(key=values.__getitem__, reverse=item.startswith("-"))
        order = known + [row for row in order if values[row] is None]
    return rows.take(np.array(order, np.intp))


def _reader(name: str) -> Callable[[Batch], Sequence[Any]]:
    return lambda batch: _values(batch, name)


# Trees of processes. A parent may be missing because its container was not selected, or because it ended in the
# meantime; its children are then at the top level. PIDs are meaningful on one node only.

_DEEPEST = 2 * 64
"""Maximum characters in front of a name. Containers may nest processes to any depth; deeper ones are shown at this
depth."""


def as_tree(rows: Rows, lines: bool) -> Rows:
    """The rows in tree order; children keep the order of the rows. `lines`: `comm` has lines in front."""
    names = rows.collect(lambda batch: owner_texts(batch, "node").values())
    pids = list(zip(names, rows.collect(_numbers("pid")), strict=True))
    parents = list(zip(names, rows.collect(_numbers("ppid")), strict=True))
    there = set(pids)
    children: dict[object, list[int]] = {}
    for row, parent in enumerate(parents):
        key = parent if parent in there and parent != pids[row] else None
        children.setdefault(key, []).append(row)
    order, prefixes = list[int](), list[str]()
    for row, prefix in _walk(children, pids):
        order.append(row)
        prefixes.append(prefix)
    arranged = rows.take(np.array(order, np.intp))
    if not lines:
        return arranged
    # Part by part, in the order in which the rows of each part come.
    places = np.arange(len(order)) if arranged.order is None else np.argsort(arranged.order, kind="stable")
    start = 0
    for part in arranged.parts:
        mine = [prefixes[place] for place in places[start : start + len(part)].tolist()]
        comms = [prefix.encode() + comm for prefix, comm in zip(mine, part.raw("comm").tolist(), strict=True)]
        part.give("comm", np.array(comms, np.bytes_))
        start += len(part)
    return arranged


def _walk(children: dict[Any, list[int]], keys: list[Any]) -> Iterator[tuple[int, str]]:
    """Each row with the lines in front of it. Parents in a cycle, which should not exist, are left out."""
    waiting = [(row, "", "") for row in reversed(children.get(None, []))]
    while waiting:
        row, own, below = waiting.pop()
        yield row, own
        found = children.pop(keys[row], [])
        deeper = len(below) < _DEEPEST
        waiting += [
            (child, below + ("└─" if last else "├─"), below + ("  " if last else "│ ") if deeper else below)
            for child, last in reversed([(child, child == found[-1]) for child in found])
        ]


def _numbers(field: str) -> Any:
    def read(batch: Batch) -> list[int]:
        numbers: list[int] = batch.raw(field).tolist()
        return numbers

    return read


# Intervals and snapshots. Each node counts its own intervals, so a block holds everything that has arrived from
# all of them since the last block; late rows go into the next one, and none are dropped. A slow or lost node must
# not hold up the others, so a block waits for a fraction of the interval and no longer.


_WAIT_SHARE = 0.4
_LEAST_WAIT_NS = 100_000_000
_MOST_BATCHES = 256
"""Above this number, batches are aggregated, since the memory of a long run would grow without limit."""


class Intervals(Collector):
    """The intervals of one gadget. `once`: everything is one block, which flush() returns. `keep` filters aggregated
    rows."""

    def __init__(self, arrangement: Arrangement, once: bool, keep: "Filter | None" = None) -> None:
        self._keep = keep
        self._arrangement = arrangement
        self._once = once
        self._wait_ns = max(int(arrangement.interval * _WAIT_SHARE * 1e9), _LEAST_WAIT_NS)
        self._batches: list[Batch] = []
        self._sources: set[Hashable] = set()
        self._ended: set[Hashable] = set()
        self._first_ended_ns: int | None = None
        self._cut_short: set[Hashable] = set()

    def join(self, source: Hashable) -> None:
        self._sources.add(source)

    def leave(self, source: Hashable) -> None:
        """Removes a source; what it sent is kept."""
        self._sources.discard(source)

    def add(self, batch: Batch, now_ns: int) -> None:
        """Takes rows of an interval that may be incomplete."""
        if len(batch):
            self._batches.append(batch)
        if self._once and len(self._batches) >= _MOST_BATCHES:
            self._batches = condense(self._batches)

    def end(self, source: Hashable, now_ns: int, is_rest: bool = False) -> None:
        """A source's interval is complete; `is_rest`: it was cut short by the end of the run."""
        self._ended.add(source)
        if is_rest:
            self._cut_short.add(source)
        if self._first_ended_ns is None:
            self._first_ended_ns = now_ns

    def release(self, now_ns: int) -> Rows:
        """A block, once all sources have sent their part of it or the wait is over."""
        if self._once or self._first_ended_ns is None:
            return NO_ROWS
        if not self._sources <= self._ended and now_ns < self._first_ended_ns + self._wait_ns:
            return NO_ROWS
        return self._block()

    def flush(self) -> Rows:
        if not self._batches and not (self._once and self._ended):
            return NO_ROWS
        block = self._block()
        block.is_rest = not self._once
        return block

    def next_release_ns(self) -> int | None:
        return None if self._once or self._first_ended_ns is None else self._first_ended_ns + self._wait_ns

    def _block(self) -> Block:
        batches, self._batches = self._batches, []
        block = arrange(batches, self._arrangement, self._keep)
        # Nodes may leave a run that continues.
        block.is_rest = bool(self._ended) and self._ended <= self._cut_short and not self._once
        self._ended.clear()
        self._cut_short.clear()
        self._first_ended_ns = None
        return block


# Captures of a flight recorder (`traceloop`): one table each. The rows are old when they arrive, and captures
# overlap in time, so rows are sorted only within a capture.


class Captures(Collector):
    """The captures of one gadget. A capture arrives in one piece from its source, and is released immediately."""

    def __init__(self) -> None:
        self._ready: deque[Batch] = deque()

    def add(self, batch: Batch, now_ns: int) -> None:
        """Takes a capture, or its rows that passed the filter."""
        if len(batch):
            order = np.argsort(batch.raw("number"), kind="stable")
            self._ready.append(batch.select(order))

    def release(self, now_ns: int) -> Rows:
        if not self._ready:
            return NO_ROWS
        rows = Rows([self._ready.popleft()])
        return Block(rows, rows)

    def flush(self) -> Rows:
        return self.release(0)

    def next_release_ns(self) -> int | None:
        return 0 if self._ready else None
