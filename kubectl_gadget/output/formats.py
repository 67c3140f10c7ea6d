"""From `-o FORMAT` to a sink.

The trap: everything that the user can have typed wrong must be found here, before anything is started in a cluster.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from kubectl_gadget.errors import UsageError
from kubectl_gadget.events.columns.members import filter_members
from kubectl_gadget.events.rows import Rows
from kubectl_gadget.events.schema import Gadget
from kubectl_gadget.output.escape import escape
from kubectl_gadget.output.jsonpath import TemplateSink, custom_cells, custom_columns
from kubectl_gadget.output.live.columns import LiveColumns
from kubectl_gadget.output.live.screen import LiveTable
from kubectl_gadget.output.machine import CsvSink, JsonSink, YamlSink
from kubectl_gadget.output.options import OutputOptions
from kubectl_gadget.output.pcapng import PcapNgSink
from kubectl_gadget.output.profiles.flame_graph import FlameGraphSink
from kubectl_gadget.output.profiles.folded import FoldedSink
from kubectl_gadget.output.profiles.pprof import PprofSink
from kubectl_gadget.output.profiles.speedscope import SpeedscopeSink
from kubectl_gadget.output.sink import Sink
from kubectl_gadget.output.tables.blocks import BlockTable
from kubectl_gadget.output.tables.histogram import TableWithBars, key_columns
from kubectl_gadget.output.tables.histogram_diff import DiffTable, Recording
from kubectl_gadget.output.tables.stream import TableSink
from kubectl_gadget.output.terminal import Terminal, wants_color
from kubectl_gadget.views.columns import DETAILS, EVENT, Heading, choose_columns, headings, nearest
from kubectl_gadget.views.rows import MemberRows, cells, detail_cells, object_names

PROFILES = ("folded", "speedscope", "pprof")
"""Of whole call stacks."""
FORMATS = ("table", "wide", "json", "yaml", "csv", "name", "pcap-ng", *PROFILES, "jsonpath", "custom-columns")
"""All formats; the last two take a template after `=`."""


class NameSink(Sink):
    """`pod/NAME`, as kubectl writes names: each pod that a row came from, once."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._written: set[str] = set()

    def write_chunk(self, rows: Rows) -> None:
        for name in dict.fromkeys(object_names(rows)):
            if name not in self._written:
                self._written.add(name)
                self._stream.write(escape(name) + "\n")

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        self.flush()


def make_sink(
    options: OutputOptions, gadgets: Sequence[Gadget], stream: TextIO, *, terminal: Terminal | None = None
) -> Sink:
    """The sink for these options, for rows of these gadgets.

    `terminal` is None for a pipe or a file. Raises UsageError for a format, a column or a template that does not
    exist or does not parse.
    """
    sink = _printing_sink(options, gadgets, stream, terminal)
    if not options.flame_graph:
        return sink
    return FlameGraphSink(options.flame_graph, gadgets, sink, options.diff, options.selection)


def _printing_sink(
    options: OutputOptions, gadgets: Sequence[Gadget], stream: TextIO, terminal: Terminal | None
) -> Sink:
    color = wants_color(options.color, terminal)
    format, has_template, template = options.format.partition("=")
    if format not in FORMATS:
        raise UsageError(f"output format {options.format!r} does not exist", nearest(format, FORMATS))
    if (format in ("jsonpath", "custom-columns")) != bool(has_template and template):
        takes = "needs a template" if not template else "takes no template"
        raise UsageError(f"-o {format} {takes}", "-o jsonpath='{.pod} {.path}{\"\\n\"}', -o custom-columns=PID:.pid")
    if options.diff and gadgets[0].histogram and format not in ("table", "wide"):
        raise UsageError(f"--diff compares in a table, and not in -o {format}")
    several = len(gadgets) > 1
    chosen = choose_columns(gadgets, options.columns, "json") if options.columns else ()
    if format in ("table", "wide"):
        names = choose_columns(gadgets, options.columns, "wide" if format == "wide" else "default")

        titles = headings(gadgets, names)
        shown = [heading.name for heading in titles]
        kind = gadgets[0].kind
        live = kind in ("top", "profile") and terminal is not None and not options.once

        keys = key_columns(gadgets[0], shown)
        recording = Recording(Path(options.diff), keys) if options.diff and gadgets[0].histogram else None

        live_table: LiveTable | None = None
        live_columns = LiveColumns(titles, keys, gadgets[0].narrow, cells)

        def fit_titles() -> list[Heading]:
            """The columns there is room for. Columns of streams lose cells instead: the last ones matter most."""
            if live_table is None or terminal is None or options.columns:
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
            if not gadgets[0].histogram:
                return plain(stream)
            if recording is not None:
                return DiffTable(stream, recording, keys, options.bars)
            return TableWithBars(plain(stream), stream, gadgets[0], shown, options.bars)

        if live and terminal:
            live_table = LiveTable(stream, table, terminal, gadgets[0], shown, options.order, options.max_rows)
            live_table.look = live_columns.look
            live_table.hidden = lambda: len(titles) - len(fit_titles())
            return live_table
        return plain(stream) if kind == "stream" else BlockTable(stream, table, once=options.once)
    if format == "json":
        return JsonSink(stream, MemberRows(chosen, several))
    if format == "yaml":
        return YamlSink(stream, MemberRows(chosen, several))
    if format == "csv":
        return CsvSink(stream, gadgets, chosen, header=not options.no_headers, escaped=terminal is not None)
    if format == "name":
        return NameSink(stream)
    if format == "folded":
        return FoldedSink(stream, gadgets)
    if format == "speedscope":
        return SpeedscopeSink(stream, gadgets)
    if format == "pprof":
        return PprofSink(stream, gadgets, terminal)
    if format == "pcap-ng":
        return PcapNgSink(stream, gadgets, terminal)
    known = {name for gadget in gadgets for name in filter_members(gadget)} | ({EVENT} if several else set())
    members = MemberRows(event=several)
    if format == "jsonpath":
        return TemplateSink(stream, template, members, known)
    columns, finds = custom_columns(template, frozenset(known))

    def custom(stream: TextIO) -> TableSink:
        return TableSink(
            stream,
            columns,
            read=lambda rows: custom_cells(members.records(rows), finds),
            terminal=terminal,
            header=not options.no_headers,
        )

    kind = gadgets[0].kind
    return custom(stream) if kind == "stream" else BlockTable(stream, custom, once=options.once)
