"""Totals of rows: counts of events, sums and histograms of tables, flows; in series with bounded labels.

Labels are the container and what is few: an operation, a system call, a program's name. PIDs, paths, addresses and
ports are no labels. Containers choose some of them, so the number of series is limited; the rest is added up in
the series `other` of each metric. Series of a pod go when nothing was seen of it for some minutes.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kubectl_gadget.export.conventions import LEVELS, durations, levels, member_values, trace_context
from kubectl_gadget.gadgets.schema import TABLES, UNKNOWN, Gadget
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.containers import UNKNOWN as NO_CONTAINER
from kubectl_gadget.rows.histogram import STARTS
from kubectl_gadget.rows.members import filter_members, owner_texts
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.vectors import exact

MOST_SERIES = 10_000
POD_SECONDS = 300.0
"""Series of a pod go when nothing was seen of it for this time."""
OTHER = "other"
PLACE = ("node", "namespace", "pod", "container")
_FEW = ("comm", "operation", "disk", "file_system", "syscall", "protocol", "direction", "state", "type", "program")
"""Members of tables that are labels"""
_FEW_OF = {"profile_functions": ("function",)}
_LATENCIES = frozenset({"trace_http", "trace_dns", "trace_tls", "trace_fsslower"})
"""Gadgets whose durations are latencies; others have times for which connections and processes lived"""
_MOST_FLOWS = 50_000
"""flows whose amounts are remembered, to add up what comes next"""
_LONGEST_LABEL = 128
_FLOW_ENDS = ("namespace", "workload")
_NANOSECONDS = 1e9

Labels = tuple[str, ...]


@dataclass(frozen=True)
class Metric:
    """One metric; its name has no unit and no suffix."""

    name: str
    help: str
    labels: tuple[str, ...]
    unit: str = ""
    """bytes, seconds, or a count"""
    kind: str = "counter"
    """counter, gauge or histogram"""


class Exemplar(NamedTuple):
    """One value of a histogram, and where it comes from."""

    seconds: float
    trace: str
    span: str
    """that of the caller, in hexadecimal as the trace"""
    time: float
    """since the epoch, in seconds"""


@dataclass
class Series:
    """The value of a metric for some labels."""

    value: float = 0.0
    buckets: npt.NDArray[np.uint64] | None = None
    """of a histogram, by rows/histogram.py; then `value` is the sum"""
    place: Labels | None = None
    """of the pod that it belongs to: node, namespace, name"""
    exemplar: Exemplar | None = None
    """the last value of a histogram that belongs to a sampled trace"""


@dataclass
class _Sum:
    """A field of a table and its metric."""

    field: str
    metric: Metric
    divisor: float


@dataclass
class _Table:
    """The metrics of one gadget whose rows are totals."""

    members: Sequence[str]
    sums: Sequence[_Sum]
    histogram: Metric | None


@dataclass
class _FlowAmounts:
    sent: int = 0
    received: int = 0


@dataclass
class Totals:
    """All series. `add` may be called beside `read`."""

    most: int = MOST_SERIES
    beyond: int = 0
    """number of times that something was added to a series `other`"""
    _series: dict[Metric, dict[Labels, Series]] = field(default_factory=dict)
    _count: int = 0
    _seen: dict[Labels, float] = field(default_factory=dict)
    _tables: dict[str, _Table] = field(default_factory=dict)
    _flows: dict[str, _FlowAmounts] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, rows: Rows) -> None:
        """Add up rows; a table's rows are whole intervals."""
        now = time.monotonic()
        with self._lock:
            fresh: set[tuple[Metric, Labels]] = set()
            for batch in rows.joined[0]:
                if batch.gadget.kind in TABLES and batch.gadget.totals.sums:
                    self._add_totals(batch, now, fresh)
                elif batch.gadget.name == "flows":
                    self._add_flows(batch, now)
                else:
                    self._add_events(batch, now)

    def read(self) -> Iterator[tuple[Metric, list[tuple[Labels, Series]]]]:
        """Yield all metrics with copies of their series, without series of pods that are gone."""
        with self._lock:
            self._expire(time.monotonic())
            found = [
                (
                    metric,
                    [(labels, Series(one.value, one.buckets, exemplar=one.exemplar)) for labels, one in series.items()],
                )
                for metric, series in self._series.items()
            ]
        yield from found

    # Series.

    def _at(self, metric: Metric, labels: Labels, place: Labels | None, now: float) -> tuple[Labels, Series]:
        """Return the series of these labels, or `other`."""
        if place is not None:
            self._seen[place] = now
        series = self._series.setdefault(metric, {})
        found = series.get(labels)
        if found is not None:
            return labels, found
        if self._count >= self.most:
            self._expire(now)
        if self._count >= self.most:
            self.beyond += 1
            labels, place = (OTHER,) * len(metric.labels), None
            return labels, series.setdefault(labels, Series())
        self._count += 1
        series[labels] = made = Series(place=place)
        return labels, made

    def _expire(self, now: float) -> None:
        gone = {place for place, seen in self._seen.items() if now - seen > POD_SECONDS}
        if not gone:
            return
        for place in gone:
            del self._seen[place]
        for series in self._series.values():
            for labels in [labels for labels, one in series.items() if one.place in gone]:
                del series[labels]
                self._count -= 1

    # Events.

    def _add_events(self, batch: Batch, now: float) -> None:
        places, codes = _places(batch)
        each = codes * len(LEVELS) + levels(batch)
        counts = np.bincount(each)
        for code in np.flatnonzero(counts).tolist():
            place = places[code // len(LEVELS)]
            labels = (batch.gadget.event, LEVELS[code % len(LEVELS)].text.lower(), *place)
            self._at(EVENTS, labels, _pod(place), now)[1].value += int(counts[code])
        if batch.gadget.name in _LATENCIES:
            self._add_latencies(batch, places, codes, now)

    def _add_latencies(self, batch: Batch, places: Sequence[Labels], codes: npt.NDArray[np.intp], now: float) -> None:
        took, known = durations(batch)
        roles = list(map(_label, member_values(batch, "role")))
        names = sorted(set(roles))
        each = codes * len(names) + np.array(list(map(names.index, roles)), np.intp)
        traces = _traces(batch)
        for code in np.unique(each[known]).tolist():
            rows = np.flatnonzero(known & (each == code))
            place = places[code // len(names)]
            series = self._at(LATENCY, (batch.gadget.event, names[code % len(names)], *place), _pod(place), now)[1]
            found = np.bincount(np.searchsorted(STARTS, took[rows], "right") - 1, minlength=len(STARTS))
            counts = found.astype(np.uint64)
            series.buckets = counts if series.buckets is None else series.buckets + counts
            series.value += float(took[rows].sum()) / _NANOSECONDS
            if (row := next((row for row in reversed(rows.tolist()) if row in traces), None)) is not None:
                series.exemplar = Exemplar(took[row] / _NANOSECONDS, *traces[row])

    # Tables.

    def _add_totals(self, batch: Batch, now: float, fresh: set[tuple[Metric, Labels]]) -> None:
        table = self._tables.get(batch.gadget.name)
        if table is None:
            table = self._tables[batch.gadget.name] = _table(batch.gadget)
        places, codes = _places(batch)
        columns = [_label_texts(batch, name) for name in table.members]
        keys: list[tuple[Labels, Labels]] = (
            [(places[code], more) for code, more in zip(codes.tolist(), zip(*columns, strict=True), strict=True)]
            if columns
            else [(places[code], ()) for code in codes.tolist()]
        )
        for one in table.sums:
            values = batch.raw(one.field).tolist()
            for (place, more), value in zip(keys, values, strict=True):
                if value == UNKNOWN:
                    continue
                labels, series = self._at(one.metric, (*place, *more), _pod(place), now)
                if one.metric.kind == "gauge" and (one.metric, labels) not in fresh:
                    fresh.add((one.metric, labels))
                    series.value = 0.0
                series.value += value / one.divisor
        if table.histogram is None:
            return
        for (place, more), buckets, total in zip(keys, batch.raw("buckets"), batch.raw("total").tolist(), strict=True):
            _, series = self._at(table.histogram, (*place, *more), _pod(place), now)
            series.buckets = buckets.astype(np.uint64) if series.buckets is None else series.buckets + buckets
            series.value += total / _NANOSECONDS

    # Flows.

    def _add_flows(self, batch: Batch, now: float) -> None:
        members = filter_members(batch.gadget)

        def values(name: str) -> list[Any]:
            member = members[name]
            return batch.vector(name, member.read).values()

        ends = [values(f"{end}.{part}") for end in ("source", "destination") for part in _FLOW_ENDS]
        rows = zip(values("kind"), values("verdict"), values("protocol"), *ends, strict=True)
        amounts = zip(values("flow_id"), values("sent"), values("received"), strict=True)
        for (kind, verdict, protocol, *ends_of), (flow, sent, received) in zip(rows, amounts, strict=True):
            who = (_label(protocol), *map(_label, ends_of))
            self._at(FLOW_EVENTS, (_label(kind), _label(verdict), *who), None, now)[1].value += 1
            known = self._flows.pop(flow, None)
            if known is None:
                known = _FlowAmounts()
                if len(self._flows) >= _MOST_FLOWS:
                    del self._flows[next(iter(self._flows))]
            for metric, before, after in ((FLOW_SENT, known.sent, sent), (FLOW_RECEIVED, known.received, received)):
                if after and after > before:
                    self._at(metric, who, None, now)[1].value += after - before
            self._flows[flow] = _FlowAmounts(max(known.sent, sent or 0), max(known.received, received or 0))


def _traces(batch: Batch) -> dict[int, tuple[str, str, float]]:
    """Return trace, span and time of the rows whose request belongs to a sampled trace."""
    found = {}
    if any(texts := member_values(batch, "traceparent")):
        times = batch.wall_ns()
        for row, text in enumerate(texts):
            if (context := trace_context(text)) is not None and context[2] & 1:
                found[row] = context[0].hex(), context[1].hex(), float(times[row]) / _NANOSECONDS
    return found


EVENTS = Metric("kubectl_gadget_events", "Events by gadget, severity and container.", ("gadget", "severity", *PLACE))
LATENCY = Metric(
    "kubectl_gadget_latency",
    "How long requests, questions, handshakes and slow calls took.",
    ("gadget", "role", *PLACE),
    "seconds",
    "histogram",
)
_FLOW = ("protocol", *(f"{end}_{part}" for end in ("source", "destination") for part in _FLOW_ENDS))
FLOW_EVENTS = Metric("kubectl_gadget_flow_events", "Events of flows.", ("kind", "verdict", *_FLOW))
FLOW_SENT = Metric("kubectl_gadget_flow_sent", "Bytes that clients have sent.", _FLOW, "bytes")
FLOW_RECEIVED = Metric("kubectl_gadget_flow_received", "Bytes that clients have received.", _FLOW, "bytes")


def _pod(place: Labels) -> Labels | None:
    return place[:3] if place[2] else None


def _places(batch: Batch) -> tuple[list[Labels], npt.NDArray[np.intp]]:
    """Return the different PLACEs of a batch, and the number of each row's place."""
    nodes = owner_texts(batch, "node")
    containers = [NO_CONTAINER] if batch.owners is None else batch.owners.containers
    owners = np.zeros(len(batch), np.intp) if batch.owners is None else batch.owners.codes
    found, codes = np.unique(nodes.codes * len(containers) + owners, return_inverse=True)
    places = []
    for code in found.tolist():
        container = containers[code % len(containers)]
        names = (nodes.words[code // len(containers)], container.namespace, container.pod, container.container)
        places.append(tuple(map(_label, names)))
    return places, codes


def _label(value: object) -> str:
    """Return a value as a label: bytes that are not UTF-8 become U+FFFD, and long ones are cut."""
    text = "" if value is None else value if isinstance(value, str) else str(value)
    return exact(text[:_LONGEST_LABEL])


def _label_texts(batch: Batch, name: str) -> list[str]:
    member = filter_members(batch.gadget)[name]
    return list(map(_label, batch.vector(name, member.read).values()))


def _table(gadget: Gadget) -> _Table:
    """Return the metrics of a gadget whose rows are totals."""
    members = filter_members(gadget)
    few = [
        name for name in (*_FEW, *_FEW_OF.get(gadget.name, ())) if name in members and name not in gadget.totals.sums
    ]
    few = [name for name in few if members[name].type == "text"]
    base, labels = f"kubectl_gadget_{gadget.name}", (*PLACE, *few)
    of_histogram = {"count", "total", "buckets"} if gadget.totals.histogram else set()
    sums = []
    for name in gadget.totals.sums:
        if name in of_histogram:
            continue
        type = gadget.record.field(name).type
        unit = {"gadget_bytes": "bytes", "gadget_duration": "seconds"}.get(type, "")
        column = next((column for column in gadget.columns if column.field == name), None)
        help = (column.description.partition(";")[0].partition(", in nanoseconds")[0] if column else name).capitalize()
        kind = "gauge" if gadget.totals.gauge or name in gadget.totals.gauges else "counter"
        short = {"total": "duration"}.get(name, name)
        short = short.removesuffix("_bytes") if unit == "bytes" else short.removesuffix("_time")
        if short == "bytes":
            short = "size"
        sums.append(
            _Sum(name, Metric(f"{base}_{short}", f"{help}.", labels, unit, kind), 1e9 if unit == "seconds" else 1)
        )
    text = f"{gadget.about.summary}."
    return _Table(few, sums, Metric(f"{base}_duration", text, labels, "seconds", "histogram") if of_histogram else None)


def octave_buckets(series: Series) -> list[tuple[float, int]]:
    """Return upper bounds in seconds, from 1 µs to 68 s in powers of two, and the counts up to each; the last bound is
    infinite."""
    assert series.buckets is not None
    sums = np.cumsum(series.buckets).tolist()
    return [*((bound / _NANOSECONDS, sums[place - 1]) for bound, place in _BOUNDS), (float("inf"), sums[-1])]


_BOUNDS = [(1 << bit, STARTS.index(1 << bit)) for bit in range(10, 37)]
