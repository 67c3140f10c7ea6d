"""Makes the sink for `-o FORMAT`, for rows. The formats and their names are in registry.py.

It finds every mistake in the user's options, before anything is started in a cluster.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.output.columns import DETAILS, EVENT, Heading, choose_columns, headings
from kubectl_gadget.output.escape import escape
from kubectl_gadget.output.histograms import DiffTable, SavedHistogram, TableWithBars, key_columns
from kubectl_gadget.output.jsonpath import TemplateSink, custom_columns, row_cells
from kubectl_gadget.output.live import LiveColumns, LiveTable
from kubectl_gadget.output.machine import CsvSink, JsonSink, YamlSink
from kubectl_gadget.output.pcapng import PcapNgSink
from kubectl_gadget.output.profiles import FoldedSink, PprofSink, SpeedscopeSink
from kubectl_gadget.output.registry import ROWS, OutputOptions
from kubectl_gadget.output.row_texts import MemberRows, cells, detail_cells, object_names
from kubectl_gadget.output.sink import Sink, StreamSink
from kubectl_gadget.output.tables import BlockTable, TableSink, without
from kubectl_gadget.output.terminal import Terminal, wants_color
from kubectl_gadget.rows.members import filter_members
from kubectl_gadget.rows.rows import Rows


class NameSink(StreamSink):
    """`pod/NAME`, as in kubectl: each pod that a row came from, once."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._written: set[str] = set()

    def write_chunk(self, rows: Rows) -> None:
        for name in dict.fromkeys(object_names(rows)):
            if name not in self._written:
                self._written.add(name)
                self._stream.write(escape(name) + "\n")


@dataclass(frozen=True)
class SinkRequest:
    """The data that a maker needs to make a sink."""

    options: OutputOptions
    gadgets: Sequence[Gadget]
    stream: TextIO
    terminal: Terminal | None
    """None for a pipe or a file"""
    template: str
    chosen: Sequence[str]
    """the columns of --columns, for formats of members; empty: all"""

    @property
    def has_event(self) -> bool:
        return len(self.gadgets) > 1

    @property
    def members(self) -> frozenset[str]:
        return frozenset(name for gadget in self.gadgets for name in filter_members(gadget)) | (
            {EVENT} if self.has_event else set()
        )


def make_sink(
    options: OutputOptions, gadgets: Sequence[Gadget], stream: TextIO, *, terminal: Terminal | None = None
) -> Sink:
    """The sink for these options, for rows of these gadgets.

    `terminal` is None for a pipe or a file. Raises UsageError for an unknown format or column, or for a template that
    does not parse.
    """
    make, template = ROWS.choose(options.format, MAKERS)
    arrangement = options.arrangement
    if arrangement.diff and gadgets[0].totals.histogram and options.format not in ("table", "wide"):
        raise UsageError(f"--diff compares in a table, not in -o {options.format.partition('=')[0]}")
    chosen = choose_columns(gadgets, options.columns, "json") if options.columns else ()
    sink = make(SinkRequest(options, gadgets, stream, terminal, template, chosen))
    if not arrangement.flame_graph:
        return sink
    from kubectl_gadget.output.flame_graph import FlameGraphSink

    return FlameGraphSink(arrangement.flame_graph, gadgets, sink, arrangement.diff, options.selection)


_SAYS_LEAST = ("node", "container", "namespace")
"""columns that tables of streams omit on a narrow terminal, in this order, if the gadget says nothing about it"""


def _columns(request: SinkRequest, shown_by: Literal["default", "wide"]) -> Sink:
    """A table: line by line for streams, in blocks for other gadgets, and redrawn in place on a terminal."""
    options, gadgets, stream, terminal = request.options, request.gadgets, request.stream, request.terminal
    arrangement = options.arrangement
    color = wants_color(options.color, terminal)
    titles = headings(gadgets, choose_columns(gadgets, options.columns, shown_by))
    shown = [heading.name for heading in titles]
    kind = gadgets[0].kind
    live = kind in ("top", "profile") and terminal is not None and not options.once
    keys = key_columns(gadgets[0], shown)
    recording = (
        SavedHistogram(Path(arrangement.diff), keys) if arrangement.diff and gadgets[0].totals.histogram else None
    )
    live_table: LiveTable | None = None
    live_columns: LiveColumns | None = None

    def fit_titles() -> list[Heading]:
        """The columns that fit. Streams leave out only those that say least, and shorten cells, since the last columns
        matter most."""
        if terminal is None or options.columns:
            return titles
        if kind == "stream" and shown_by == "default":
            return without(titles, terminal.width(), gadgets[0].table.narrow or _SAYS_LEAST)
        if live_table is None or live_columns is None:
            return titles
        return live_columns.fitting(terminal.width(), live_table.sorted_by)

    def plain(stream: TextIO) -> TableSink:
        fit = fit_titles()

        def read(rows: Rows) -> list[Sequence[str]]:
            names = [heading.name for heading in fit]
            return [detail_cells(rows, gadgets) if name == DETAILS else cells(rows, name) for name in names]

        header, wraps = not options.no_headers, live_table is None
        return TableSink(stream, fit, read=read, terminal=terminal, color=color, header=header, wraps=wraps)

    def table(stream: TextIO) -> Sink:
        if not gadgets[0].totals.histogram:
            return plain(stream)
        if recording is not None:
            return DiffTable(stream, recording, keys, arrangement.bars)
        return TableWithBars(plain(stream), stream, gadgets[0], shown, arrangement.bars)

    if live and terminal:
        live_columns = LiveColumns(titles, keys, gadgets[0].table.narrow, cells)
        live_table = LiveTable(stream, table, terminal, gadgets[0], shown, arrangement)
        live_table.look = live_columns.look
        live_table.hidden = lambda: len(titles) - len(fit_titles())
        return live_table
    return plain(stream) if kind == "stream" else BlockTable(stream, table, once=options.once)


def _csv(request: SinkRequest) -> Sink:
    header, escaped = not request.options.no_headers, request.terminal is not None
    return CsvSink(request.stream, request.gadgets, request.chosen, header=header, escaped=escaped)


# What few runs need is imported only for them.


def _jsonpath(request: SinkRequest) -> Sink:
    return TemplateSink(request.stream, request.template, MemberRows(event=request.has_event), set(request.members))


def _custom_columns(request: SinkRequest) -> Sink:
    columns, finds = custom_columns(request.template, request.members)
    members, header = MemberRows(event=request.has_event), not request.options.no_headers

    def custom(stream: TextIO) -> TableSink:
        return TableSink(
            stream,
            columns,
            read=row_cells(members, request.template, finds),
            terminal=request.terminal,
            header=header,
        )

    if request.gadgets[0].kind == "stream":
        return custom(request.stream)
    return BlockTable(request.stream, custom, once=request.options.once)


def _pcapng(request: SinkRequest) -> Sink:
    return PcapNgSink(request.stream, request.gadgets, request.terminal)


def _folded(request: SinkRequest) -> Sink:
    return FoldedSink(request.stream, request.gadgets)


def _speedscope(request: SinkRequest) -> Sink:
    return SpeedscopeSink(request.stream, request.gadgets)


def _pprof(request: SinkRequest) -> Sink:
    return PprofSink(request.stream, request.gadgets, request.terminal)


MAKERS: Mapping[str, Callable[[SinkRequest], Sink]] = {
    "table": lambda request: _columns(request, "default"),
    "wide": lambda request: _columns(request, "wide"),
    "json": lambda request: JsonSink(request.stream, MemberRows(request.chosen, request.has_event)),
    "yaml": lambda request: YamlSink(request.stream, MemberRows(request.chosen, request.has_event)),
    "csv": _csv,
    "name": lambda request: NameSink(request.stream),
    "pcap-ng": _pcapng,
    "folded": _folded,
    "speedscope": _speedscope,
    "pprof": _pprof,
    "jsonpath": _jsonpath,
    "custom-columns": _custom_columns,
}
"""Makers by the format's name in registry.ROWS."""
