"""Shows flows in each format of registry.FLOWS.

Formats that any gadget has are the engine's, with the members of rows.py; tables have cells of their own, which say
more about an end than one member does. Maps are drawn at the end, even when Ctrl-C ends the run, or in between.
Note: names come from containers and from the network; every text for a terminal is escaped before it is printed.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

from kubectl_gadget.errors import UsageError
from kubectl_gadget.flows.flow import DROPPED, ERROR, FORWARDED, FlowEvent, Who
from kubectl_gadget.flows.hubble import arrow, compact, hubble, late_mark
from kubectl_gadget.flows.map import FlowGraph, dot, mermaid, text_map
from kubectl_gadget.flows.rows import FLAT_MEMBERS, GADGET, MEMBERS, events_of
from kubectl_gadget.output.columns import Heading, names_of
from kubectl_gadget.output.escape import escape, json_line
from kubectl_gadget.output.jsonpath import TemplateSink, custom_columns, row_cells
from kubectl_gadget.output.machine import CsvSink, JsonSink, YamlSink
from kubectl_gadget.output.registry import FLOWS, OutputOptions
from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.output.sink import Sink, StreamSink
from kubectl_gadget.output.tables import TableSink
from kubectl_gadget.output.terminal import RED, Terminal, wants_color
from kubectl_gadget.rows.amounts import bytes_text, duration_text
from kubectl_gadget.rows.members import member_values
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.wording import suggested

Draw = Callable[[FlowGraph], str]


@dataclass(frozen=True)
class SinkRequest:
    """The parameters for making a sink."""

    options: OutputOptions
    stream: TextIO
    terminal: Terminal | None
    template: str = ""
    map_every: float | None = None

    @property
    def color(self) -> bool:
        return wants_color(self.options.color, self.terminal)

    def members(self, all: Sequence[str]) -> Sequence[str]:
        """Return the members of the columns that the user has chosen, else all of them. Raises UsageError."""
        chosen = [member for name in self.options.columns for member in _MEMBERS_OF.get(name, (name,))]
        if unknown := [name for name in chosen if name not in (*MEMBERS, *FLAT_MEMBERS)]:
            raise _unknown_column(unknown[0], [*MEMBERS, *FLAT_MEMBERS])
        return chosen or all


_MEMBERS_OF = {"time": ("timestamp",), "workload": ("source.workload", "destination.workload")}
"""Columns of tables that have other names in JSON."""


def _unknown_column(name: str, known: Sequence[str]) -> UsageError:
    return UsageError(f"flows have no column {name!r}", suggested(name, known))


class EventSink(StreamSink):
    """Writes the text of each event. `text_of` returns it with its line end."""

    def __init__(self, stream: TextIO, text_of: Callable[[FlowEvent], str]) -> None:
        super().__init__(stream)
        self._text_of = text_of

    def write_chunk(self, rows: Rows) -> None:
        self._stream.write("".join(map(self._text_of, rows.collect(events_of))))


class MapSink(StreamSink):
    """Draws a map at the end, and in between at the request's interval."""

    def __init__(self, request: SinkRequest, draw: Draw) -> None:
        super().__init__(request.stream)
        self._draw = draw
        self._every = request.map_every
        self._graph = FlowGraph()
        self._due = time.monotonic() + (request.map_every or 0)

    def write_chunk(self, rows: Rows) -> None:
        self._graph.add_all(rows.collect(events_of))

    def flush(self) -> None:
        if self._every and time.monotonic() >= self._due:
            self._due = time.monotonic() + self._every
            self._stream.write(self._drawn() + "\n")
        self._stream.flush()

    def close(self) -> None:
        self._stream.write(self._drawn())
        self._stream.flush()

    def _drawn(self) -> str:
        self._graph.settle()
        return self._draw(self._graph)


class WatchedSink(Sink):
    """Passes events to `watch`, and rows to another sink."""

    def __init__(self, sink: Sink, watch: Callable[[Sequence[FlowEvent]], object]) -> None:
        self._sink = sink
        self._watch = watch

    def start(self) -> None:
        self._sink.start()

    def write_chunk(self, rows: Rows) -> None:
        self._watch(rows.collect(events_of))
        self._sink.write_chunk(rows)

    def gap(self, node: str, seconds: float, until_ns: int) -> None:
        self._sink.gap(node, seconds, until_ns)

    def flush(self) -> None:
        self._sink.flush()

    def close(self) -> None:
        self._sink.close()


class PodNames(StreamSink):
    """`pod/NAME`, as in kubectl: each pod at one end of a flow, once."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._written: set[str] = set()

    def write_chunk(self, rows: Rows) -> None:
        for event in rows.collect(events_of):
            for party in (event.flow.client, event.flow.backend or event.flow.server):
                name = f"pod/{party.who.pod.name}" if party.who.pod else ""
                if name and name not in self._written:
                    self._written.add(name)
                    self._stream.write(escape(name) + "\n")


# Tables.


HEADINGS: Sequence[Heading] = (
    Heading("time", "TIME", 13),  # with the mark of a late row
    Heading("source", "SOURCE", 30, whole=True),
    Heading("destination", "DESTINATION", 33, whole=True),
    Heading("protocol", "PROTO", 5),
    Heading("verdict", "VERDICT", 9),
    Heading("summary", "SUMMARY", 20, stretch=True),
)
WIDE_HEADINGS: Sequence[Heading] = (
    *HEADINGS[:1],
    Heading("node", "NODE", 10),
    *HEADINGS[1:3],
    Heading("workload", "WORKLOAD", 16),
    *HEADINGS[3:5],
    Heading("sent", "SENT", 8, "right"),
    Heading("received", "RECV", 8, "right"),
    Heading("retransmits", "RETRANS", 7, "right"),
    Heading("rtt", "RTT", 7, "right"),
    *HEADINGS[5:],
)

_NARROW_HEADINGS: Sequence[Heading] = (
    Heading("second", "TIME", 9),
    Heading("client", "SOURCE", 18, whole=True),
    Heading("server", "DESTINATION", 24, whole=True),
    Heading("result", "RESULT", 20, stretch=True),
)
"""of a terminal that is too narrow: without processes, and with the verdict only where it says something"""
_NARROW = 119
"""cells that HEADINGS take with names of pods and processes that are not long"""

COLORS: dict[str, str] = {FORWARDED: "", DROPPED: RED, ERROR: RED}
"""colors of verdicts"""


class FlowTableSink(TableSink):
    """A table of the columns that the user has chosen, else of those that are `shown`."""

    def __init__(self, request: SinkRequest, shown: Sequence[Heading]) -> None:
        """Raises UsageError for an unknown column."""
        options = request.options
        known = {heading.name: heading for heading in (*WIDE_HEADINGS, *HEADINGS)}
        known |= {name: Heading(name, name.upper(), 10) for name in FLAT_MEMBERS if name not in known}
        columns = names_of(options.columns, [(heading.title, heading.name) for heading in known.values()])
        if unknown := [column for column in columns if column not in known]:
            raise _unknown_column(unknown[0], list(known))
        is_narrow = shown is HEADINGS and request.terminal is not None and request.terminal.width() < _NARROW
        headings = [known[column] for column in columns] or list(_NARROW_HEADINGS if is_narrow else shown)
        super().__init__(
            request.stream,
            headings,
            read=self._cells,
            terminal=request.terminal,
            color=request.color,
            header=not options.no_headers,
        )

    def _cells(self, rows: Rows) -> list[Sequence[str]]:
        events = rows.collect(events_of)
        return [
            list(map(_CELLS[heading.name], events))
            if heading.name in _CELLS
            else rows.collect(lambda batch, name=heading.name: list(map(_cell, member_values(batch, name))))  # type: ignore[misc]
            for heading in self._headings
        ]

    def _colors(self, rows: Rows, columns: Sequence[Sequence[str]]) -> dict[int, list[str]]:
        if not self._color:
            return {}
        return {
            number: [COLORS[cell] for cell in columns[number]]
            for number, heading in enumerate(self._headings)
            if heading.name == "verdict"
        } | {
            number: [RED if cell.startswith((DROPPED, ERROR)) else "" for cell in columns[number]]
            for number, heading in enumerate(self._headings)
            if heading.name == "result"
        }


def _cell(value: object) -> str:
    """A cell of a member."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _source(event: FlowEvent) -> str:
    client = event.flow.client
    return f"{client.name} ({client.who.process})" if client.who.process else client.name


def _destination(event: FlowEvent) -> str:
    flow = event.flow
    server = flow.backend or flow.server
    text = f"{arrow(event)} {flow.server.place}"
    if flow.backend is not None:
        text += f" = {flow.backend.place}"
    return f"{text} ({server.who.process})" if server.who.process else text


def _server(event: FlowEvent) -> str:
    return f"{arrow(event)} {(event.flow.backend or event.flow.server).place}"


def _result(event: FlowEvent) -> str:
    first = event.verdict if event.verdict != FORWARDED else event.flow.protocol if event.l7 is None else ""
    return f"{first} {event.summary}".lstrip()


def _workload_of(who: Who) -> str:
    found = who.pod.workload if who.pod else None
    return f"{found.kind}/{found.name}" if found else "-"


def _duration(nanoseconds: int | None) -> str:
    return "-" if nanoseconds is None else duration_text(nanoseconds)


_CELLS: dict[str, Callable[[FlowEvent], str]] = {
    "time": lambda event: event.timestamp[11:23] + late_mark(event),
    "node": lambda event: event.node,
    "source": _source,
    "destination": _destination,
    "workload": lambda event: " -> ".join(_workload_of(party.who) for party in (event.flow.client, event.flow.server)),
    "protocol": lambda event: event.flow.protocol,
    "verdict": lambda event: event.verdict,
    "sent": lambda event: bytes_text(event.flow.sent),
    "received": lambda event: bytes_text(event.flow.received),
    "retransmits": lambda event: str(event.flow.retransmits),
    "rtt": lambda event: _duration(event.flow.rtt_ns),
    "summary": lambda event: event.summary,
    "second": lambda event: event.timestamp[11:19] + late_mark(event),
    "client": lambda event: event.flow.client.name,
    "server": _server,
    "result": _result,
}


# The sink for each format.


def _custom_columns(request: SinkRequest) -> Sink:
    columns, finds = custom_columns(request.template, frozenset(MEMBERS))
    read = row_cells(MemberRows(MEMBERS), request.template, finds)
    header = not request.options.no_headers
    return TableSink(request.stream, columns, read=read, terminal=request.terminal, header=header)


def _csv(request: SinkRequest) -> Sink:
    header, escaped = not request.options.no_headers, request.terminal is not None
    return CsvSink(request.stream, [GADGET], request.members(FLAT_MEMBERS), header=header, escaped=escaped)


MAKERS: Mapping[str, Callable[[SinkRequest], Sink]] = {
    "table": lambda request: FlowTableSink(request, HEADINGS),
    "wide": lambda request: FlowTableSink(request, WIDE_HEADINGS),
    "json": lambda request: JsonSink(request.stream, MemberRows(request.members(MEMBERS))),
    "jsonpb": lambda request: EventSink(request.stream, lambda event: json_line(hubble(event)) + "\n"),
    "compact": lambda request: EventSink(request.stream, lambda event: compact(event) + "\n"),
    "dot": lambda request: MapSink(request, dot),
    "mermaid": lambda request: MapSink(request, mermaid),
    "yaml": lambda request: YamlSink(request.stream, MemberRows(request.members(MEMBERS))),
    "csv": _csv,
    "name": lambda request: PodNames(request.stream),
    "jsonpath": lambda request: TemplateSink(request.stream, request.template, MemberRows(MEMBERS), MEMBERS),
    "custom-columns": _custom_columns,
}
"""By the format's name in registry.FLOWS."""


def make_sink(
    options: OutputOptions,
    stream: TextIO,
    terminal: Terminal | None,
    *,
    with_map: bool = False,
    map_every: float | None = None,
) -> Sink:
    """Return the sink for these options. Raises UsageError for an unknown format or column, or a template that does not
    parse."""
    make, template = FLOWS.choose(options.format, MAKERS)
    request = SinkRequest(options, stream, terminal, template, map_every)
    if with_map and options.format in ("table", "wide"):
        return MapSink(request, lambda graph: text_map(graph, request.color))
    return make(request)
