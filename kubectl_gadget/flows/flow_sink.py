"""Prints the flows that a transform makes of rows: the sink of `kubectl gadget flows`.

The trap: a map is drawn at the end (and in between, with an interval), even when Ctrl-C ends the run.
"""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from kubectl_gadget.flows.filter import FlowFilter
from kubectl_gadget.flows.flow import FlowEvent
from kubectl_gadget.flows.flow_formats import Draw, Write, output_of
from kubectl_gadget.flows.joiner import FlowTable
from kubectl_gadget.flows.map import FlowGraph
from kubectl_gadget.flows.transform import FlowTransform
from kubectl_gadget.output.escape import json_line
from kubectl_gadget.output.machine import gap_record
from kubectl_gadget.output.output_options import OutputOptions
from kubectl_gadget.output.sink import Sink
from kubectl_gadget.output.terminal import Terminal
from kubectl_gadget.rows.rows import Rows, Transform

Listener = Callable[[Sequence[FlowEvent]], object]


class FlowSink(Sink):
    """Takes rows of the network gadgets. `row_listeners` get all rows and `listeners` the events that are shown, both
    in this thread."""

    rows_at_once = 16384
    """With 4,096, a seventh of the time is what each chunk takes whatever its number of rows."""

    def __init__(
        self,
        transform: Transform[Sequence[FlowEvent]],
        write: Write | None,
        stream: TextIO,
        draw: Draw | None = None,
        draw_every: float | None = None,
        listeners: Sequence[Listener] = (),
        row_listeners: Sequence[Callable[[Rows], object]] = (),
        writes_gaps: bool = False,
    ) -> None:
        self._writes_gaps = writes_gaps
        self._transform = transform
        self._write = write
        self._stream = stream
        self._draw = draw
        self._every = draw_every
        self._listeners = listeners
        self._row_listeners = row_listeners
        self._graph = FlowGraph()
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
        if self._writes_gaps:
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
    """Suspends Python's cyclic garbage collector while a chunk is processed: it would examine every row of the chunk,
    which contains no cycles and is freed soon. What remains of the chunk is examined once, afterwards."""
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
    draw, write = output_of(options, stream, terminal, with_map)
    every = map_every if draw else None
    in_json = options.format == "json" and draw is None
    return FlowSink(FlowTransform(table, flow_filter), write, stream, draw, every, listeners, row_listeners, in_json)
