"""How each format of registry.FLOWS shows flows: a text for each event, or a map that is drawn at the end.

The trap: names come from containers, so output for a terminal is escaped where it is made.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

from kubectl_gadget.errors import UsageError
from kubectl_gadget.flows import flow_lines
from kubectl_gadget.flows.flow import FlowEvent
from kubectl_gadget.flows.flow_columns import csv_header, flat
from kubectl_gadget.flows.map import FlowGraph, dot, mermaid, text_map
from kubectl_gadget.flows.records import MEMBERS, hubble, lines, record
from kubectl_gadget.output.columns import Heading, names_of
from kubectl_gadget.output.escape import csv_line, escape, json_line
from kubectl_gadget.output.jsonpath import compile_template, custom_cells, custom_columns
from kubectl_gadget.output.machine import yaml_text
from kubectl_gadget.output.output_options import OutputOptions
from kubectl_gadget.output.registry import FLOWS
from kubectl_gadget.output.tables import TableSink
from kubectl_gadget.output.terminal import Terminal, wants_color
from kubectl_gadget.similar_names import suggested

Write = Callable[[Sequence[FlowEvent]], object]
Draw = Callable[[FlowGraph], str]


@dataclass(frozen=True)
class WriterRequest:
    """The parameters for creating a writer."""

    options: OutputOptions
    stream: TextIO
    terminal: Terminal | None
    template: str = ""

    @property
    def color(self) -> bool:
        return wants_color(self.options.color, self.terminal)


Output = tuple[Draw | None, Write | None]
"""Exactly one of the two is set."""


def output_of(options: OutputOptions, stream: TextIO, terminal: Terminal | None, with_map: bool = False) -> Output:
    """The function that draws or prints flows. Raises UsageError for an unknown format or column, or a template that
    does not parse."""
    make, template = FLOWS.choose(options.format, MAKERS)
    request = WriterRequest(options, stream, terminal, template)
    draw, write = make(request)
    if draw is None and with_map:
        return (lambda found: text_map(found, request.color)), None
    return draw, write


def _each(text: Callable[[FlowEvent], str], end: str = "\n") -> Callable[[WriterRequest], Output]:
    def make(request: WriterRequest) -> Output:
        return None, lambda events: request.stream.write("".join([text(event) + end for event in events]))

    return make


def _jsonpath(request: WriterRequest) -> Output:
    render = compile_template(request.template, MEMBERS)
    return None, lambda events: request.stream.write("".join([render(record(event)) for event in events]))


def _custom_columns(request: WriterRequest) -> Output:
    columns, finds = custom_columns(request.template, MEMBERS)
    header = not request.options.no_headers
    sink = TableSink(request.stream, columns, terminal=request.terminal, header=header)
    return None, lambda events: sink.write_cells(custom_cells([record(event) for event in events], finds))


def _columns(request: WriterRequest, shown: Sequence[Heading]) -> Write:
    options, color = request.options, request.color
    known = {heading.name: heading for heading in (*flow_lines.WIDE_HEADINGS, *flow_lines.HEADINGS)}
    columns = names_of(options.columns, [(heading.title, heading.name) for heading in known.values()])
    if unknown := [column for column in columns if column not in known]:
        raise UsageError(f"flows have no column {unknown[0]!r}", suggested(unknown[0], known))
    headings = [known[column] for column in columns] or list(shown)
    header = not options.no_headers
    sink = TableSink(request.stream, headings, terminal=request.terminal, color=color, header=header)
    place = next((number for number, heading in enumerate(headings) if heading.name == "verdict"), None)

    def write(events: Sequence[FlowEvent]) -> None:
        columns = flow_lines.columns(events, headings)
        painted = {}
        if color and place is not None:
            painted[place] = list(map(flow_lines.COLORS.__getitem__, columns[place]))
        sink.write_cells(columns, painted)

    return write


def _csv(request: WriterRequest) -> Output:
    escaped = request.terminal is not None
    begun = request.options.no_headers

    def write(events: Sequence[FlowEvent]) -> None:
        nonlocal begun
        if not begun and len(events):
            request.stream.write(csv_header())
            begun = True
        request.stream.writelines(csv_line(flat(event, escaped).values()) for event in events)

    return None, write


def _names(request: WriterRequest) -> Output:
    written: set[str] = set()

    def write(events: Sequence[FlowEvent]) -> None:
        for event in events:
            for party in (event.flow.client, event.flow.backend or event.flow.server):
                name = f"pod/{party.who.pod.name}" if party.who.pod else ""
                if name and name not in written:
                    written.add(name)
                    request.stream.write(escape(name) + "\n")

    return None, write


MAKERS: Mapping[str, Callable[[WriterRequest], Output]] = {
    "table": lambda request: (None, _columns(request, flow_lines.HEADINGS)),
    "wide": lambda request: (None, _columns(request, flow_lines.WIDE_HEADINGS)),
    "json": lambda request: (None, lambda events: request.stream.write("\n".join([*lines(events), ""]))),
    "jsonpb": _each(lambda event: json_line(hubble(event))),
    "compact": _each(flow_lines.compact),
    "dict": _each(lambda event: flow_lines.dictionary(event) + "\n------------"),
    "dot": lambda request: (dot, None),
    "mermaid": lambda request: (mermaid, None),
    "yaml": _each(lambda event: "---\n" + yaml_text(record(event)), end=""),
    "csv": _csv,
    "name": _names,
    "jsonpath": _jsonpath,
    "custom-columns": _custom_columns,
}
"""By the format's name in registry.FLOWS."""
