"""Checks the user's input and builds filters, output and request from it, before the first node is asked.

This imports numpy, which takes as long as an agent's start. So live_run.py first starts sessions of agents that already
run, and calls this in a thread beside them. In runs where nothing is left to check, agents even attach during this
(early_request() in request.py).
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TextIO

from kubectl_gadget.filters.filter import compile_filter
from kubectl_gadget.filters.pushdown import kernel_parameters
from kubectl_gadget.gadgets.schema import TABLES, Gadget
from kubectl_gadget.output.columns import column_names
from kubectl_gadget.output.output_formats import make_sink
from kubectl_gadget.output.registry import OutputOptions
from kubectl_gadget.output.sink import Sink, TakingSink
from kubectl_gadget.output.terminal import find_terminal
from kubectl_gadget.rows.containers import ContainerFilter
from kubectl_gadget.rows.merge import TimeMerge
from kubectl_gadget.rows.rows import Collector
from kubectl_gadget.rows.tables import Captures, Intervals, added_up_members, check, order_of, shown_columns
from kubectl_gadget.rows.views import Stage, make_stage
from kubectl_gadget.run.backlog import FrameSource
from kubectl_gadget.run.pipeline import Conditions, Pipeline, PipelineEvents
from kubectl_gadget.run.request import RunRequest, of_run
from kubectl_gadget.run.run_options import RunExport, RunOptions

if TYPE_CHECKING:  # needed only for a filter, and takes 20 ms
    from kubectl_gadget.filters.filter import Filter


@dataclass(frozen=True)
class Preparation:
    """Everything that was checked and built."""

    options: RunOptions
    request: RunRequest
    conditions: Conditions
    sink: Sink
    export: RunExport | None = None

    def pipeline(
        self,
        frames: FrameSource,
        wants: Callable[[str, str], bool | None],
        events: PipelineEvents,
        narrowed: ContainerFilter | None = None,
    ) -> Pipeline:
        """Builds the run's pipeline. `narrowed`: conditions that containers must meet beside the run's selection."""
        options = self.options
        gadgets = [run.gadget for run in options.gadgets]

        def make_stages() -> list[Stage | None]:
            return [make_stage(run.gadget, run.parameters) for run in options.gadgets]

        named = None
        if place := options.arrangement.debuginfo:
            from kubectl_gadget.run.debuginfo import debug_names  # what few runs need, such as tempfile

            named = debug_names(place, events.warn).named
        return Pipeline(
            frames,
            gadgets,
            self.conditions,
            _collector(options, self.conditions),
            self.sink,
            events,
            wants,
            make_stages,
            options.transform,
            narrowed,
            options.addresses,
            options.beside,
            self.export,
            named,
        )


def prepare(options: RunOptions, stdout: TextIO) -> Preparation:
    """Checks all of the user's input. Raises GadgetError."""
    gadgets = [run.gadget for run in options.gadgets]
    shown = [options.transform.gadget] if options.transform else gadgets

    def compiled(text: str | None, flag: str) -> "Filter | None":
        if text is None:
            return None
        return compile_filter(text, shown, flag)

    filter = compiled(options.filter, "--filter")
    first, of_sums = filter.divided(added_up_members(shown[0])) if filter else (None, None)
    conditions = Conditions(
        first,
        of_sums,
        compiled(options.fail_on, "--fail-on"),
        compiled(options.expect, "--expect"),
        options.max_events,
        {run.gadget.name: run.only for run in options.gadgets if run.only},
    )
    options = _with_names(options, shown)
    check(options.arrangement, gadgets)
    terminal = find_terminal(stdout, os.environ)
    export = options.export(shown) if options.export is not None else None
    if export is not None and export.takes_output:
        sink: Sink = TakingSink(lambda rows: None)
    elif options.make_sink is not None:
        sink = options.make_sink(shown, stdout, terminal)
    else:
        sink = make_sink(_output(options), shown, stdout, terminal=terminal)
        if export is not None and _is_null(stdout):
            sink = TakingSink(lambda rows: None)
    pushed = _pushed(None if options.transform else filter, gadgets)
    return Preparation(options, of_run(options, pushed), conditions, sink, export)


def _is_null(stdout: TextIO) -> bool:
    """Return True if nobody reads this, as in the pod of an export: rows that are sent elsewhere need no formatting."""
    try:
        return os.path.samestat(os.fstat(stdout.fileno()), os.stat(os.devnull))
    except (OSError, ValueError):  # it has no descriptor
        return False


def _pushed(filter: "Filter | None", gadgets: Sequence[Gadget]) -> list[dict[str, object]]:
    """Returns what the kernel can decide of the filter, for each gadget."""
    if filter is None:
        return [{} for _ in gadgets]
    return [kernel_parameters(filter, gadget) for gadget in gadgets]


def _with_names(options: RunOptions, gadgets: Sequence[Gadget]) -> RunOptions:
    """Replaces the headings that the user typed by names of columns."""
    arrangement, output = options.arrangement, options.output
    if options.make_sink is None:
        output = replace(output, columns=column_names(gadgets, output.columns))
    by, order = column_names(gadgets, arrangement.by), column_names(gadgets, arrangement.sort)
    return replace(options, output=output, arrangement=replace(arrangement, by=by, sort=order))


def _collector(options: RunOptions, conditions: Conditions) -> Collector:
    """Returns what holds rows back, by the kind of the gadgets; several gadgets in one run are all streams."""
    kind = options.gadgets[0].gadget.kind
    if kind in TABLES:
        return Intervals(options.arrangement, _is_once(options), conditions.of_sums)
    return Captures() if kind == "recorder" else TimeMerge(int(options.sort_wait * 1e9), options.sort)


def _is_once(options: RunOptions) -> bool:
    """True if there is only one table, at the end."""
    return options.gadgets[0].gadget.kind == "snapshot" or options.arrangement.at_end


def _output(options: RunOptions) -> OutputOptions:
    """Adds the arrangement of tables to the output options."""
    gadget, output, arrangement = options.gadgets[0].gadget, options.output, options.arrangement
    with_time = output.format not in ("table", "wide")
    columns = output.columns or shown_columns(arrangement, gadget, with_time)
    arrangement = replace(arrangement, sort=order_of(arrangement, gadget))
    return replace(output, columns=columns, once=_is_once(options), arrangement=arrangement)
