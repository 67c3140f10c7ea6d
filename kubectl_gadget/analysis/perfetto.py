"""Writes events as a trace that ui.perfetto.dev opens: the JSON of trace events.

Each process is a track. An event with a duration is a slice that ends at the event's time, other events are marks, and
an arrow leads from a connection's connect to its accept. Times are numbers of µs as floats, which cannot hold
nanoseconds since 1970, and none may be negative; so they count from a month before the first event, and `otherData` has
that moment. And an arrow's id has to be a hexadecimal number of 64 bits that no other arrow has, or Perfetto drops it.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.output.columns import EVENT
from kubectl_gadget.output.escape import json_line
from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.output.sink import StreamSink
from kubectl_gadget.rows.amounts import nanoseconds
from kubectl_gadget.rows.rows import Rows

_DURATIONS = ("duration", "latency", "run_time")
_TITLES = ("path", "operation", "name", "signal", "syscall")
_ARROW_NS = 1
"""Arrows lead from slice to slice, so the marks at their ends have this duration."""
_BEFORE_NS = 30 * 24 * 3600 * 1_000_000_000
"""A slice may begin this long before the first event. The sum of µs with three decimals still fits into a float."""
_MOST_OPEN = 1 << 16
_MOST_PROCESSES = 1 << 20


class PerfettoSink(StreamSink):
    """Takes rows of streams, in order of time."""

    def __init__(self, stream: TextIO, gadgets: Sequence[Gadget]) -> None:
        """Raises UsageError for other gadgets."""
        if other := [" ".join(gadget.command) for gadget in gadgets if gadget.kind != "stream"]:
            raise UsageError(f"-o perfetto is for events, and {other[0]} has none", "-o parquet")
        super().__init__(stream)
        self._members = MemberRows(event=True)
        self._began_ns: int | None = None
        self._processes: dict[tuple[str, int], int] = {}
        self._slices = 0
        self._arrows = 0
        self._open: dict[str, str] = {}
        """by connection: the id of an arrow that has begun"""

    def write_chunk(self, rows: Rows) -> None:
        for record in self._members.records(rows):
            end_ns = nanoseconds(record["timestamp"])
            if self._began_ns is None:
                self._began_ns = max(0, end_ns - _BEFORE_NS)
                other = json_line({"began_ns": str(self._began_ns)})
                self._stream.write(f'{{"otherData":{other},"traceEvents":[\n')
                self._stream.write(json_line({"ph": "M", "name": "trace_began", "pid": 0, "args": {}}))
            for item in self._events(record, end_ns - self._began_ns):
                self._stream.write(",\n" + json_line(item))

    def close(self) -> None:
        self._stream.write("\n]}\n" if self._began_ns is not None else '{"traceEvents":[]}\n')
        self.flush()

    def _events(self, record: dict[str, Any], end_ns: int) -> Iterator[dict[str, Any]]:
        event, pid = record[EVENT], record.get("pid") or 0
        key = (record["node"], pid)
        track = self._processes.get(key)
        if track is None:
            if len(self._processes) >= _MOST_PROCESSES:
                self._processes.clear()
            track = self._processes[key] = len(self._processes) + 1
            yield {"ph": "M", "name": "process_name", "pid": track, "args": {"name": _process_name(record, pid)}}
        detail = next((str(record[name]) for name in _TITLES if record.get(name)), "")
        common = {
            "name": f"{event} {detail}".strip(),
            "cat": event,
            "pid": track,
            "tid": record.get("tid") or pid,
            "args": {name: value for name, value in record.items() if value not in (None, "") and name != EVENT},
        }
        duration = next(
            (record[name] for name in _DURATIONS if isinstance(record.get(name), int) and record[name]), None
        )
        if arrow := _arrow(record):
            yield {**common, "ph": "X", "ts": _us(end_ns), "dur": _us(_ARROW_NS)}
            place = {"name": "connection", "cat": event, "pid": track, "tid": common["tid"], "ts": _us(end_ns)}
            if end := self._end_of_arrow(*arrow):
                yield {**place, **end}
        elif duration is None:
            yield {**common, "ph": "i", "s": "t", "ts": _us(end_ns)}
        else:
            # Connections and requests of one process overlap, which slices of one track must not.
            self._slices += 1
            place = {name: common[name] for name in ("name", "cat", "pid", "tid")} | {"id": self._slices}
            yield {**place, "ph": "b", "ts": _us(max(0, end_ns - duration)), "args": common["args"]}
            yield {**place, "ph": "e", "ts": _us(end_ns)}

    def _end_of_arrow(self, kind: str, connection: str) -> dict[str, str] | None:
        """The members that make an event an end of an arrow; None: the end of an arrow whose beginning was not seen."""
        if kind == "f":
            id = self._open.pop(connection, None)
            return None if id is None else {"ph": "f", "bp": "e", "id": id}
        if len(self._open) >= _MOST_OPEN:
            del self._open[next(iter(self._open))]
        self._arrows += 1
        id = self._open[connection] = f"{self._arrows:x}"
        return {"ph": "s", "id": id}


def _process_name(record: dict[str, object], pid: int) -> str:
    places = [record.get(name) for name in ("namespace", "pod", "container")]
    where = "/".join(str(place) for place in places if place)
    return " ".join(filter(None, (f"{record.get('comm') or '-'}[{pid}]", where, f"on {record['node']}")))


def _arrow(record: dict[str, object]) -> tuple[str, str] | None:
    """Return the end of an arrow that a row is, and the connection, by both ends' addresses."""
    if record[EVENT] != "tcp" or record.get("operation") not in ("connect", "accept") or record.get("errno"):
        return None
    local, remote = (f"{record[end]}:{record[f'{end}_port']}" for end in ("local", "remote"))
    return ("s", f"{local}>{remote}") if record["operation"] == "connect" else ("f", f"{remote}>{local}")


def _us(ns: int) -> float:
    return round(ns / 1000, 3)
