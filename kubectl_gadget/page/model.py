"""The view model of a run: what the page shows, as JSON (docs/report.md), made of the rows of a run.

Everything is aggregated while rows come, in bounded memory, by whole columns: a million rows take some seconds. What is
sampled or left out stands in the model with its number, and the page says it.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.output.columns import choose_columns
from kubectl_gadget.output.escape import escape
from kubectl_gadget.output.flame_graph import Node, tree
from kubectl_gadget.output.profiles import FoldedSink, has_stacks, unit_of
from kubectl_gadget.output.sink import WholeSink
from kubectl_gadget.page.processes import Forest, command_of
from kubectl_gadget.page.tables import Entry, Histogram, Table, entries, grouped
from kubectl_gadget.reports.model import workload_of
from kubectl_gadget.rows.batch import Batch, Mask
from kubectl_gadget.rows.containers import Container
from kubectl_gadget.rows.kinds import Member
from kubectl_gadget.rows.members import filter_members, find_column, shown
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.vectors import Integers, Numbers, different

BINS = 240
_MOST_SERIES, _SERIES_SHOWN = 2000, 120
_MOST_PLACES = 20_000
_MOST_MARKS = 200
_MOST_OF_WORKLOAD = 4000
_TABLE_ROWS = 800
_MOST_PROGRAMS = 800
_MOST_ROWS = 3000
"""of all gadgets; half of them are rows of what failed, if there are as many"""
_LEAST_ROWS = 60
"""of each gadget"""
_LONGEST_CELL = 240
_OTHERS = "other pods"
_NO_NUMBER = np.int64(-1)
_FILE_GADGETS = frozenset({"trace_open", "trace_fileuse", "trace_file", "trace_fsslower"})
_MOST_CALLS = 3000
_ROWS_AT_ONCE = 16_384
_ACCESS = 3
"""O_ACCMODE"""


@dataclass(frozen=True)
class RowOrigin:
    """The source of rows, in words."""

    pod: str
    """NAMESPACE/POD, or node/NAME"""
    where: str
    """with the container"""
    workload: str
    is_node: bool = False
    """of no container"""


@dataclass(frozen=True)
class Limits:
    """Limits of the rows and texts that are shown."""

    series: int = _SERIES_SHOWN
    programs: int = _MOST_PROGRAMS
    entries: int = _TABLE_ROWS
    rows: int = _MOST_ROWS
    latest: bool = False
    """the last rows, not rows of all times"""


class RunModel(WholeSink):
    """Takes all rows of a run. `document` may be called at any time, between two calls that take rows."""

    def __init__(self, gadgets: Sequence[Gadget], began_ns: int, ended_ns: int, limits: Limits | None = None) -> None:
        """`began_ns` and `ended_ns`: the time that the timeline is of; rows outside are at its ends."""
        self._gadgets = gadgets
        # With both, each start and end would count twice.
        has_processes = any(gadget.name == "trace_process" for gadget in gadgets)
        self._of_processes = ("trace_process",) if has_processes else ("trace_exec", "trace_exit")
        self._limits = limits = limits or Limits()
        self.began_ns = began_ns
        self.step_ns = _step(max(1, ended_ns - began_ns))
        self.bins = min(BINS, -(-max(1, ended_ns - began_ns) // self.step_ns))
        self.rows = 0
        self._pending: list[Batch] = []
        self._pending_rows = 0
        self.latest_ns = began_ns
        self._places: dict[tuple[Container, str], RowOrigin] = {}
        self._series: dict[tuple[str, str], npt.NDArray[np.int64]] = {}
        self._failed: dict[str, npt.NDArray[np.int64]] = {}
        self._gaps: list[dict[str, Any]] = []
        self._marks: list[dict[str, Any]] = []
        self._marks_left_out = 0
        self.forest = Forest()
        self._files = Table(_MOST_OF_WORKLOAD, _folder, _top_folder)
        self._names = Table(_MOST_OF_WORKLOAD)
        self._requests = Table(_MOST_OF_WORKLOAD, _without_target)
        self._latencies = {"dns": Histogram(), "http": Histogram()}
        self._samples = {gadget.name: _Samples(gadget, limits) for gadget in gadgets}
        self._profiles = {gadget.name: FoldedSink(io.StringIO(), [gadget]) for gadget in gadgets if has_stacks(gadget)}
        self._members: dict[str, Mapping[str, Member]] = {}

    # Rows.

    def write(self, rows: Rows) -> None:
        self.rows += len(rows)
        self._pending += rows.parts
        self._pending_rows += len(rows)
        if self._pending_rows >= _ROWS_AT_ONCE:
            self._take_pending()

    def _take_pending(self) -> None:
        """Takes many rows together: a batch of ten rows costs as much as one of a thousand."""
        # Processes first: what others did is theirs.
        parts = sorted(self._pending, key=lambda one: (one.gadget.name not in self._of_processes, one.gadget.name))
        self._pending, self._pending_rows = [], 0
        for batch in Rows(parts).joined[0]:
            for start in range(0, len(batch), _ROWS_AT_ONCE):
                part = batch.select(np.arange(start, min(start + _ROWS_AT_ONCE, len(batch))))
                self._take(part)
                part.forget_columns()
            batch.forget_columns()
        for batch in parts:
            batch.forget_columns()

    def write_block(self, rows: Rows) -> None:
        if rows.parts and (profile := self._profiles.get(rows.parts[0].gadget.name)):
            profile.write_block(rows)
        super().write_block(rows.everything)

    def grow(self, until_ns: int) -> None:
        """Make room in the timeline for rows until this time: each two bins become one."""
        while until_ns - self.began_ns > self.step_ns * self.bins:
            self.step_ns *= 2
            for counts in (*self._series.values(), *self._failed.values()):
                half = counts[0::2].copy()
                half[: len(counts) // 2] += counts[1::2]
                counts[:] = 0
                counts[: len(half)] = half

    def gap(self, node: str, seconds: float, until_ns: int) -> None:
        self.mark_gap(node, until_ns - round(seconds * 1e9), until_ns, "")

    def mark_gap(self, node: str, since_ns: int, until_ns: int, cause: str) -> None:
        """Notes a time span without the events of a node."""
        if until_ns and len(self._gaps) < _MOST_MARKS:
            found = {"node": node, "from": self.ms(since_ns), "to": self.ms(until_ns), "cause": cause}
            self._gaps.append(found)

    def mark(self, wall_ns: int, kind: str, text: str) -> None:
        """Notes something that happened once: a step of a job, the end of a container."""
        if len(self._marks) < _MOST_MARKS:
            self._marks.append({"ms": self.ms(wall_ns), "kind": kind, "text": text})
        else:
            self._marks_left_out += 1

    def ms(self, wall_ns: int) -> int:
        """Return milliseconds since the beginning."""
        return round((wall_ns - self.began_ns) / 1e6)

    def _take(self, batch: Batch) -> None:
        gadget, name = batch.gadget, batch.gadget.name
        members = self._members_of(batch)
        places, codes = self._places_of(batch)
        try:
            times = batch.wall_ns()
        except KeyError:  # a table of an interval
            times = None
        failed = self._failures(batch, members)
        self._sample(batch, times, failed)
        if times is None or gadget.kind != "stream":
            return
        self.latest_ns = max(self.latest_ns, int(np.max(times)))
        self._count(gadget.event, places, codes, times, failed)
        if name in self._of_processes:
            self._processes(batch, members, places, codes, times)
        elif name == "trace_oomkill":
            for code, ns in zip(codes.tolist(), times.tolist(), strict=True):
                self.mark(ns, "oomkill", f"{places[code].where}: killed, out of memory")
        if name != "trace_process" and {"pid", "comm"} <= members.keys():
            self._attach(batch, members, places, codes, times, failed)
        if name == "trace_dns":
            self._lookups(batch, members, places, codes, times, failed)
        elif name == "trace_http":
            self._exchanges(batch, members, places, codes, times, failed)

    def _members_of(self, batch: Batch) -> Mapping[str, Member]:
        name = batch.gadget.name
        if name not in self._members:
            self._members[name] = filter_members(batch.gadget)
        return self._members[name]

    def _places_of(self, batch: Batch) -> tuple[list[RowOrigin], Integers]:
        """Return the places of a batch's rows, and each row's."""
        if batch.origins is None:
            nodes, of_node = [batch.node], np.zeros(len(batch), np.intp)
        else:
            nodes, of_node = list(batch.origins.nodes), batch.origins.codes
        if batch.owners is None:
            containers, of_owner = [Container()], np.zeros(len(batch), np.intp)
        else:
            containers, of_owner = list(batch.owners.containers), batch.owners.codes
        pairs, codes = different(of_owner.astype(np.int64) * len(nodes) + of_node)
        found = [self._place(containers[pair // len(nodes)], nodes[pair % len(nodes)]) for pair in pairs.tolist()]
        return found, codes

    def _place(self, container: Container, node: str) -> RowOrigin:
        key = (container, "" if container.pod else node)
        known = self._places.get(key)
        if known is None:
            known = _place(container, node)
            if len(self._places) < _MOST_PLACES:
                self._places[key] = known
        return known

    def _failures(self, batch: Batch, members: Mapping[str, Member]) -> Mask:
        name, failed = batch.gadget.name, np.zeros(len(batch), np.bool_)
        if "errno" in members and (errno := _numbers(batch, members, "errno")) is not None:
            failed |= errno > 0
        if name == "trace_dns":
            failed |= np.array([code not in (None, "", "NOERROR") for code in _values(batch, members, "rcode")], bool)
        if name == "trace_http" and (status := _numbers(batch, members, "status")) is not None:
            failed |= status >= 500
        if batch.gadget.event in ("tcpdrop", "oomkill"):
            failed[:] = True
        return failed

    def _count(self, event: str, places: Sequence[RowOrigin], codes: Integers, times: Integers, failed: Mask) -> None:
        bins = np.clip((times - self.began_ns) // self.step_ns, 0, self.bins - 1).astype(np.int64)
        flat = np.bincount(codes * self.bins + bins, minlength=len(places) * self.bins)
        for number, counts in enumerate(flat.reshape(len(places), self.bins)):
            key = (event, places[number].pod)
            if key not in self._series and len(self._series) >= _MOST_SERIES:
                key = (event, _OTHERS)
            known = self._series.setdefault(key, np.zeros(self.bins, np.int64))
            known += counts
        if failed.any():
            bad = self._failed.setdefault(event, np.zeros(self.bins, np.int64))
            bad += np.bincount(bins[failed], minlength=self.bins)

    def _processes(
        self, batch: Batch, members: Mapping[str, Member], places: Sequence[RowOrigin], codes: Integers, times: Integers
    ) -> None:
        name = batch.gadget.name
        operations = _values(batch, members, "operation") if name == "trace_process" else [name[6:]] * len(batch)
        errors = _values(batch, members, "error") if "error" in members else [None] * len(batch)
        empty = [None] * len(batch)
        args, paths, exit_codes, signals = (
            _values(batch, members, key) if key in members else empty for key in ("args", "path", "code", "signal")
        )
        rows = zip(
            operations,
            errors,
            batch.nodes(),
            _values(batch, members, "pid"),
            _values(batch, members, "ppid"),
            _values(batch, members, "comm"),
            args,
            paths,
            exit_codes,
            signals,
            codes.tolist(),
            times.tolist(),
            _values(batch, members, "container_pid"),
            strict=True,
        )
        for operation, error, node, pid, ppid, comm, arg, path, exit_code, signal, code, ns, inner in rows:
            where = places[code].where
            if operation == "exit":
                how = signal or (f"exit {exit_code}" if exit_code and exit_code > 0 else "")
                self.forest.ended(node, pid, where, comm or "", ns, str(how))
                if inner == 1 and not places[code].is_node:
                    self.mark(ns, "end", f"{where}: its first process ended{f' ({how})' if how else ''}")
            elif not error:
                command = f"({comm or '-'})" if operation == "fork" else command_of(arg, path, comm)
                self.forest.began(node, pid, ppid or 0, where, command, ns, operation == "fork")

    def _attach(
        self,
        batch: Batch,
        members: Mapping[str, Member],
        places: Sequence[RowOrigin],
        codes: Integers,
        times: Integers,
        failed: Mask,
    ) -> None:
        """Gives rows to their processes, and files to their table."""
        nodes, of_node = (
            ([batch.node], np.zeros(len(batch), np.intp)) if batch.origins is None else batch.origins[1::-1]
        )
        wheres = [place.where for place in places]
        owners = _Picked(wheres, codes)
        programs = np.zeros(len(batch), np.intp)
        found = []
        of_pid = self.forest.programs(
            nodes, of_node, batch.raw("pid"), times, owners, lambda: _values(batch, members, "comm")
        )
        for program, rows in of_pid:
            program.rows += len(rows)
            program.failed += int(failed[rows].sum())
            found.append(program)
            programs[rows] = len(found)
        kinds, names = self._did(batch, members)
        if kinds is None:
            return
        keys, groups = grouped(list(zip(programs.tolist(), kinds, names, strict=True)))
        counts = np.bincount(groups, minlength=len(keys)).tolist()
        for (program, kind, name), number in zip(keys, counts, strict=True):
            if program and name:
                found[program - 1].note(kind, name, number)
        if batch.gadget.name in _FILE_GADGETS:
            self._note_files(batch, members, places, codes, times, failed, kinds, names)

    def _did(self, batch: Batch, members: Mapping[str, Member]) -> tuple[Any, Any]:
        """Return what the rows did, and to what; None: nothing that a process is remembered for."""
        name = batch.gadget.name
        if name == "trace_open":
            writes = (batch.raw("flags").astype(np.int64) & _ACCESS) != 0
            return ["wrote" if write else "opened" for write in writes.tolist()], _values(batch, members, "path")
        if name in _FILE_GADGETS:
            told = {"open": "opened", "read": "opened", "write": "wrote"}
            return [told.get(each, each) for each in _values(batch, members, "operation")], _values(
                batch, members, "path"
            )
        if name in ("trace_tcp", "trace_udp"):
            told = {"connect": "connected", "syn": "connected", "accept": "accepted", "first": "connected"}
            kinds = [told.get(each) for each in _values(batch, members, "operation")]
            local, remote = ("local", "local_port"), ("remote", "remote_port")
            ports = zip(*(_values(batch, members, key) for key in (*local, *remote)), strict=True)
            pods = zip(*(_values(batch, members, f"remote_{key}") for key in ("pod", "service")), strict=True)
            protocol = name[6:].upper()
            texts = [
                None
                if kind is None
                else f"{pod or service or address} at :{port} {protocol}"
                if kind == "accepted"
                else f"{pod or service or address}:{other} {protocol}"
                for kind, (_, port, address, other), (pod, service) in zip(kinds, ports, pods, strict=True)
            ]
            return kinds, texts
        if name == "trace_dns":
            return ["asked"] * len(batch), _values(batch, members, "name")
        if name == "trace_exec":
            errors = _values(batch, members, "error")
            return ["could not run" if error else "ran" for error in errors], [
                path if error else None for error, path in zip(errors, _values(batch, members, "path"), strict=True)
            ]
        return None, None

    def _note_files(
        self,
        batch: Batch,
        members: Mapping[str, Member],
        places: Sequence[RowOrigin],
        codes: Integers,
        times: Integers,
        failed: Mask,
        kinds: Sequence[str],
        names: Sequence[str | None],
    ) -> None:
        errors = _values(batch, members, "error") if "error" in members else [None] * len(batch)
        comms = _values(batch, members, "comm")
        keys, groups = grouped(list(zip(codes.tolist(), comms, kinds, names, errors, strict=True)))
        made = entries(groups, len(keys), times, failed)
        for (code, comm, kind, path, error), entry in zip(keys, made, strict=True):
            key = (comm or "", kind.removesuffix("ed") if kind == "opened" else kind, path or "", error or "")
            self._files.add(places[code].workload, key, entry)

    def _lookups(
        self,
        batch: Batch,
        members: Mapping[str, Member],
        places: Sequence[RowOrigin],
        codes: Integers,
        times: Integers,
        failed: Mask,
    ) -> None:
        latency = _numbers(batch, members, "latency")
        latency = np.full(len(batch), _NO_NUMBER) if latency is None else latency
        columns = (_values(batch, members, name) for name in ("comm", "role", "name", "type", "rcode"))
        rows = list(zip(codes.tolist(), *columns, strict=True))
        asked = np.array([row[2] != "server" for row in rows], bool)
        self._latencies["dns"].add(latency[asked])
        keys, groups = grouped(rows)
        for (code, *rest), entry in zip(keys, entries(groups, len(keys), times, failed, latency), strict=True):
            self._names.add(places[code].workload, tuple(text or "" for text in rest), entry)

    def _exchanges(
        self,
        batch: Batch,
        members: Mapping[str, Member],
        places: Sequence[RowOrigin],
        codes: Integers,
        times: Integers,
        failed: Mask,
    ) -> None:
        latency = _numbers(batch, members, "latency")
        latency = np.full(len(batch), _NO_NUMBER) if latency is None else latency
        self._latencies["http"].add(latency)
        columns = (_values(batch, members, name) for name in ("role", "method", "host", "target", "status"))
        rows = [
            (code, role, method, host, (target or "").partition("?")[0], status)
            for code, role, method, host, target, status in zip(codes.tolist(), *columns, strict=True)
        ]
        keys, groups = grouped(rows)
        for (code, *rest), entry in zip(keys, entries(groups, len(keys), times, failed, latency), strict=True):
            self._requests.add(places[code].workload, tuple("" if text is None else str(text) for text in rest), entry)

    def _sample(self, batch: Batch, times: Integers | None, failed: Mask) -> None:
        if (samples := self._samples.get(batch.gadget.name)) is not None:
            samples.take(batch, times, failed)

    # The model.

    @property
    def done(self) -> float:
        """Return which part of the time the rows so far are of, 0 to 1."""
        return min(1.0, (self.latest_ns - self.began_ns) / max(1, self.step_ns * self.bins))

    def document(self) -> dict[str, Any]:
        """Return the parts of the model that are made of rows."""
        self._take_pending()
        return {
            "timeline": self._timeline(),
            "processes": self.forest.document(self._limits.programs, self.began_ns),
            "files": self._table(self._files, ("comm", "did", "path", "error")),
            "dns": {
                **self._table(self._names, ("comm", "role", "name", "type", "rcode")),
                "latency": self._latencies["dns"].document(),
            },
            "http": {
                **self._table(self._requests, ("role", "method", "host", "target", "status")),
                "latency": self._latencies["http"].document(),
            },
            "profile": self._profile(),
            "rows": self._raw_rows(),
        }

    def counts(self) -> dict[str, int]:
        """Return the number of rows of each kind, by event, including those without a time."""
        return {samples.gadget.event: samples.seen for samples in self._samples.values()}

    def _timeline(self) -> dict[str, object]:
        ranked = sorted(self._series.items(), key=lambda item: -int(item[1].sum()))
        chosen = {key: counts for key, counts in ranked[: self._limits.series]}
        for (event, _), counts in ranked[self._limits.series :]:
            key = (event, _OTHERS)
            chosen[key] = chosen[key] + counts if key in chosen else counts
        return {
            "step_ms": self.step_ns / 1e6,
            "bins": self.bins,
            "series": [
                {"kind": kind, "pod": pod, "rows": int(counts.sum()), "counts": counts.tolist()}
                for (kind, pod), counts in chosen.items()
            ],
            "failed": {kind: counts.tolist() for kind, counts in self._failed.items()},
            "put_together": max(0, len(ranked) - self._limits.series),
            "gaps": self._gaps,
            "marks": sorted(self._marks, key=lambda mark: mark["ms"]),
            "marks_left_out": self._marks_left_out,
        }

    def _table(self, table: Table, columns: Sequence[str]) -> dict[str, object]:
        top = table.top(self._limits.entries)
        return {
            "columns": ["workload", *columns],
            "rows": [[workload, *key, *self._numbers_of(entry)] for workload, key, entry in top],
            "seen": table.seen,
            "folded": table.folded,
        }

    def _numbers_of(self, entry: Entry) -> list[int | None]:
        """Return count, failed, first and last in ms, and mean and most of an amount."""
        mean = entry.sum // entry.amounts if entry.amounts else None
        first, last = self.ms(entry.first_ns), self.ms(entry.last_ns)
        return [entry.count, entry.failed, first, last, mean, entry.most if entry.amounts else None]

    def _profile(self) -> dict[str, object] | None:
        for gadget in self._gadgets:
            profile = self._profiles.get(gadget.name)
            if profile is not None and (paths := profile.paths):
                root = tree(paths)
                shown, left_out = pruned(root, _MOST_CALLS)
                title = " ".join(gadget.command)
                unit = unit_of(gadget, gadget.totals.weight)
                return {"title": title, "unit": unit, "root": shown, "left_out": left_out}
        return None

    def _raw_rows(self) -> dict[str, object]:
        having = [samples for samples in self._samples.values() if samples.seen]
        kinds, room = {}, self._limits.rows
        for left, samples in zip(range(len(having), 0, -1), sorted(having, key=lambda one: one.seen), strict=True):
            found = samples.document(max(_LEAST_ROWS, room // left), self.began_ns)
            kinds[samples.gadget.name] = found
            room -= len(found["rows"])
        return {
            "kinds": [kinds[samples.gadget.name] for samples in having],
            "seen": sum(samples.seen for samples in having),
        }


class _Picked(Sequence[str]):
    """`[words[code] for code in codes]`, made for the rows that are asked for."""

    def __init__(self, words: Sequence[str], codes: Integers) -> None:
        self._words = words
        self._codes = codes

    def __len__(self) -> int:
        return len(self._codes)

    def __getitem__(self, row: Any) -> Any:
        return self._words[self._codes[row]]


# Samples of rows: every n-th, where n doubles when there are too many, so all of the run is in it.


@dataclass
class _Thinned:
    most: int
    latest: bool = False
    """the last rows are kept"""
    every: int = 1
    seen: int = 0
    kept: list[tuple[int, int, bool, list[str]]] = field(default_factory=list)
    """number of the row, time, whether it failed, cells"""

    def choose(self, rows: Integers) -> Integers:
        """Return the rows that are kept; all of them are counted."""
        numbers = np.arange(self.seen, self.seen + len(rows))
        self.seen += len(rows)
        if self.latest:
            self.kept = self.kept[-self.most :]
            return rows[-self.most :]
        while len(self.kept) + np.count_nonzero(numbers % self.every == 0) > 2 * self.most:
            self.every *= 2
            self.kept = self.kept[::2]
        chosen: Integers = rows[numbers % self.every == 0]
        return chosen


class _Samples:
    """Rows of one gadget: some of all, and some of those that failed."""

    def __init__(self, gadget: Gadget, limits: Limits) -> None:
        self.gadget = gadget
        names = [name for name in choose_columns([gadget], (), "default") if name != "timestamp"]
        self.columns = [column for name in names if (column := find_column(gadget, name)) is not None]
        self._all, self._bad = (_Thinned(limits.rows // 2, limits.latest) for _ in range(2))

    @property
    def seen(self) -> int:
        return self._all.seen

    def take(self, batch: Batch, times: Integers | None, failed: Mask) -> None:
        base = self._all.seen
        for thinned, rows in ((self._all, np.arange(len(batch))), (self._bad, np.flatnonzero(failed))):
            chosen = thinned.choose(rows)
            if not len(chosen):
                continue
            part = batch.select(chosen)
            cells = [shown(part, column) for column in self.columns]
            when = np.zeros(len(chosen), np.int64) if times is None else times[chosen]
            thinned.kept += [
                (base + row, ns, bad, [text[:_LONGEST_CELL] for text in texts])
                for row, ns, bad, *texts in zip(
                    chosen.tolist(), when.tolist(), failed[chosen].tolist(), *cells, strict=True
                )
            ]

    def document(self, most: int, began_ns: int) -> dict[str, Any]:
        choose = _last if self._all.latest else _spread
        bad = choose(self._bad.kept, most // 2)
        chosen = {row[0] for row in bad}
        rest = [row for row in self._all.kept if row[0] not in chosen]
        rows = sorted([*bad, *choose(rest, most - len(bad))], key=lambda row: (row[1], row[0]))
        return {
            "kind": self.gadget.event,
            "command": " ".join(self.gadget.command),
            "columns": [column.title for column in self.columns],
            "seen": self.seen,
            "failed": self._bad.seen,
            "rows": [
                [round((ns - began_ns) / 1e6, 3) if ns else None, int(is_bad), *cells] for _, ns, is_bad, cells in rows
            ],
        }


def _spread(rows: list[Any], most: int) -> list[Any]:
    """Return at most `most` of the rows, evenly spread."""
    if len(rows) <= most:
        return rows
    return [rows[place * len(rows) // most] for place in range(most)]


def _last(rows: list[Any], most: int) -> list[Any]:
    return rows[-most:] if most > 0 else []


# Parts.


def _step(span_ns: int) -> int:
    """Return the width of a bin: 1, 2 or 5 times a power of ten."""
    least, step = -(-span_ns // BINS), 1_000_000
    while True:
        for factor in (1, 2, 5):
            if step * factor >= least:
                return step * factor
        step *= 10


def _place(container: Container, node: str) -> RowOrigin:
    if container.pod:
        pod = container.pod_name
        where = f"{pod}/{container.container}" if container.container else pod
        return RowOrigin(pod, where, f"{container.namespace}/{workload_of(container.pod)}")
    if container.container:
        return RowOrigin(container.container, container.container, container.container)
    name = f"node/{node}"
    return RowOrigin(name, name, name, is_node=True)


def _values(batch: Batch, members: Mapping[str, Member], name: str) -> list[Any]:
    member = members[name]
    return batch.vector(member.name, member.read).values()


def _numbers(batch: Batch, members: Mapping[str, Member], name: str) -> Integers | None:
    """Return the values of a member, and -1 where it has none; None: it has no numbers."""
    member = members[name]
    vector = batch.vector(member.name, member.read)
    if not isinstance(vector, Numbers):
        return None
    valid = vector.valid()
    found = vector.array.astype(np.int64)
    return found if valid is None else np.where(valid, found, _NO_NUMBER)


def _folder(key: tuple[str, ...]) -> tuple[str, ...]:
    comm, did, path, error = key
    folder = path.rpartition("/")[0]
    return comm, did, f"{folder}/…", error


def _top_folder(key: tuple[str, ...]) -> tuple[str, ...]:
    _, did, path, error = key
    return "…", did, f"{'/'.join(path.split('/')[:3])}/…", error


def _without_target(key: tuple[str, ...]) -> tuple[str, ...]:
    role, method, host, _, status = key
    return role, method, host, "…", status


def pruned(root: Node, most: int) -> tuple[Node, int]:
    """Return the tree of the widest calls, and the number of those left out."""
    weights, waiting = [], [root]
    while waiting:
        node = waiting.pop()
        weights.append(node[2])
        waiting += node[3]
    if len(weights) <= most:
        return root, 0
    least = sorted(weights, reverse=True)[most - 1] + 1
    kept, waiting = 1, [root]
    while waiting:
        node = waiting.pop()
        node[3] = [child for child in node[3] if child[2] >= least]
        kept += len(node[3])
        waiting += node[3]
    return root, len(weights) - kept


def safe(value: Any) -> Any:
    """Return a value of JSON whose texts can be shown: valid, without control characters and changes of direction."""
    if isinstance(value, str):
        return value if value.isprintable() else escape(value).encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {safe(key): safe(item) for key, item in value.items()}
    return [safe(item) for item in value] if isinstance(value, list | tuple) else value
