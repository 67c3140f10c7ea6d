"""Prints the flows that a transform makes of rows: the sink of `kubectl gadget flows`.

The trap: a map is drawn at the end (and, with an interval, in between), also when the run is cut off by Ctrl-C.
"""

import csv
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from kubectl_gadget.errors import UsageError
from kubectl_gadget.events.collector import Transform
from kubectl_gadget.events.rows import Rows
from kubectl_gadget.flows import graph, lines
from kubectl_gadget.flows.filter import FlowFilter
from kubectl_gadget.flows.flow import FlowEvent
from kubectl_gadget.flows.records import DENIED_BY, MEMBERS, hubble, line, record
from kubectl_gadget.flows.table import FlowTable
from kubectl_gadget.flows.transform import FlowTransform
from kubectl_gadget.output.escape import escape, is_printable, json_line
from kubectl_gadget.output.gap import gap_record
from kubectl_gadget.output.jsonpath import compile_template, custom_cells, custom_columns
from kubectl_gadget.output.machine import csv_cell
from kubectl_gadget.output.options import OutputOptions
from kubectl_gadget.output.sink import Sink
from kubectl_gadget.output.tables.stream import TableSink
from kubectl_gadget.output.terminal import Terminal, wants_color
from kubectl_gadget.views.columns import names_of, nearest
from kubectl_gadget.views.rows import LATE

FORMATS = ("table", "wide", "json", "jsonpb", "compact", "dict", "yaml", "csv", "name", "dot", "mermaid")
TEMPLATE_FORMATS = ("jsonpath", "custom-columns")
_GRAPHS = {"dot": graph.dot, "mermaid": graph.mermaid}

Write = Callable[[Sequence[FlowEvent]], None]
Draw = Callable[[graph.FlowGraph], str]
Listener = Callable[[Sequence[FlowEvent]], object]


class FlowSink(Sink):
    """Rows of the network gadgets go in. `row_listeners` get all of them, and `listeners` the events that are shown, in
    this thread."""

    def __init__(
        self,
        transform: Transform[Sequence[FlowEvent]],
        write: Write | None,
        stream: TextIO,
        draw: Draw | None = None,
        draw_every: float | None = None,
        listeners: Sequence[Listener] = (),
        row_listeners: Sequence[Callable[[Rows], object]] = (),
        tells_gaps: bool = False,
    ) -> None:
        self._tells_gaps = tells_gaps
        self._transform = transform
        self._write = write
        self._stream = stream
        self._draw = draw
        self._every = draw_every
        self._listeners = listeners
        self._row_listeners = row_listeners
        self._graph = graph.FlowGraph()
        self._due = time.monotonic() + (draw_every or 0)

    def write_chunk(self, rows: Rows) -> None:
        for take in self._row_listeners:
            take(rows)
        with _uncollected():
            events = self._transform.apply(rows)
            if not events:
                return
            if self._write is not None:
                self._write(events)
            if self._draw is not None:
                self._graph.add_all(events)
            for listener in self._listeners:
                listener(events)
            del events

    def gap(self, node: str, seconds: float, until_ns: int) -> None:
        if self._tells_gaps:
            self._stream.write(json_line(gap_record(node, seconds, until_ns)) + "\n")

    def flush(self) -> None:
        if self._draw is not None and self._every and time.monotonic() >= self._due:
            self._due = time.monotonic() + self._every
            self._stream.write(self._drawn(self._draw) + "\n")
        self._stream.flush()

    def close(self) -> None:
        if self._draw is not None:
            self._stream.write(self._drawn(self._draw))
        self._stream.flush()

    def _drawn(self, draw: Draw) -> str:
        self._graph.settle()
        return draw(self._graph)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Puts Python's search for cycles off while a chunk is worked at: it would look at every row that is about to go,
    and there are none. What stays of the chunk is looked at once, afterwards."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def make_flow_sink(
    options: OutputOptions,
    table: FlowTable,
    stream: TextIO,
    terminal: Terminal | None,
    flow_filter: FlowFilter,
    *,
    with_map: bool = False,
    map_every: float | None = None,
    listeners: Sequence[Listener] = (),
    row_listeners: Sequence[Callable[[Rows], object]] = (),
) -> FlowSink:
    """The sink for these options. Raises UsageError for a template that does not parse."""
    color = wants_color(options.color, terminal)
    name, _, template = options.format.partition("=")
    if name in _GRAPHS:
        draw: Draw | None = _GRAPHS[name]
    else:
        draw = (lambda found: graph.text_map(found, color)) if with_map else None
    write = None if draw else _writer(name, template, options, stream, terminal, color)
    every = map_every if draw else None
    in_json = name == "json" and draw is None
    return FlowSink(FlowTransform(table, flow_filter), write, stream, draw, every, listeners, row_listeners, in_json)


def check_format(text: str) -> str:
    """The format, as `-o` takes it here. Raises ValueError."""
    name, has_template, template = text.partition("=")
    if name not in (*FORMATS, *TEMPLATE_FORMATS):
        raise ValueError(f"there is no such format; one of {', '.join((*FORMATS, *TEMPLATE_FORMATS))}")
    if (name in TEMPLATE_FORMATS) != bool(has_template and template):
        raise ValueError("takes no template" if name in FORMATS else "needs a template: jsonpath='{.summary}'")
    return text


def _writer(
    name: str, template: str, options: OutputOptions, stream: TextIO, terminal: Terminal | None, color: bool
) -> Write:
    def each(text: Callable[[FlowEvent], str]) -> Write:
        return lambda events: void(stream.write("".join([text(event) + "\n" for event in events])))

    match name:
        case "table" | "wide":
            return _table(name, options, stream, terminal, color)
        case "json":
            return each(line)
        case "jsonpb":
            return each(lambda event: json_line(hubble(event)))
        case "compact":
            return each(lines.compact)
        case "dict":
            return each(lambda event: lines.dictionary(event) + "\n------------")
        case "yaml":
            return each(_yaml())
        case "csv":
            return _csv(stream, header=not options.no_headers, escaped=terminal is not None)
        case "name":
            return _names(stream)
        case "jsonpath":
            render = compile_template(template, MEMBERS)
            return lambda events: void(stream.write("".join([render(record(event)) for event in events])))
    columns, finds = custom_columns(template, MEMBERS)
    sink = TableSink(stream, columns, terminal=terminal, header=not options.no_headers)
    return lambda events: sink.write_cells(custom_cells([record(event) for event in events], finds))


def _table(name: str, options: OutputOptions, stream: TextIO, terminal: Terminal | None, color: bool) -> Write:
    known = {heading.name: heading for heading in (*lines.WIDE_HEADINGS, *lines.HEADINGS)}
    columns = names_of(options.columns, [(heading.title, heading.name) for heading in known.values()])
    if unknown := [column for column in columns if column not in known]:
        raise UsageError(f"flows have no column {unknown[0]!r}", nearest(unknown[0], known))
    headings = [known[column] for column in columns]
    headings = headings or list(lines.WIDE_HEADINGS if name == "wide" else lines.HEADINGS)
    sink = TableSink(stream, headings, terminal=terminal, color=color, header=not options.no_headers)
    place = next((number for number, heading in enumerate(headings) if heading.name == "verdict"), None)

    def write(events: Sequence[FlowEvent]) -> None:
        rows = [lines.cells(event, headings) for event in events]
        painted = {}
        if color and place is not None:
            painted[place] = [lines.COLORS[event.verdict] for event in events]
        sink.write_cells(list(zip(*rows, strict=True)), painted)

    return write


def _yaml() -> Callable[[FlowEvent], str]:
    import yaml

    def text(event: FlowEvent) -> str:
        made = record(event)
        found: str = yaml.safe_dump(made, sort_keys=False, allow_unicode=is_printable(made), width=1 << 30)
        return "---\n" + found.rstrip("\n")

    return text


def _csv(stream: TextIO, header: bool, escaped: bool) -> Write:
    """The members of JSON; those of an end are `source.pod` and so on, and empty where there is none."""
    writer = csv.writer(stream, lineterminator="\n")
    begun = not header

    def write(events: Sequence[FlowEvent]) -> None:
        nonlocal begun
        for event in events:
            flat = {LATE: ""} | _flat(record(event), escaped)
            flat[LATE] = flat.pop(LATE)
            if not begun:
                writer.writerow(flat)
                begun = True
            writer.writerow(flat.values())

    return write


def _flat(found: dict[str, Any], escaped: bool) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    inner = {"source": (), "destination": (), "backend": found["source"], "denied_by": DENIED_BY}
    for name, value in found.items():
        if name in inner:
            parts = value or dict.fromkeys(inner[name])
            flat |= {f"{name}.{part}": csv_cell(text, escaped) for part, text in parts.items()}
        else:
            flat[name] = csv_cell(value, escaped)
    return flat


def _names(stream: TextIO) -> Write:
    written: set[str] = set()

    def write(events: Sequence[FlowEvent]) -> None:
        for event in events:
            for party in (event.flow.client, event.flow.backend or event.flow.server):
                name = f"pod/{party.pod.name}" if party.pod else ""
                if name and name not in written:
                    written.add(name)
                    stream.write(escape(name) + "\n")

    return write


def void(_: object) -> None:
    """For what returns a number that nobody needs."""
