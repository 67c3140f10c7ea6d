"""Flags of gadgets that are not streams: how their tables are sorted, truncated and aggregated.

A gadget has those of ArrangementFlags that make sense for it. The trap: columns are checked against the gadget in
session.run, before anything is started, like those of --columns.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from kubectl_gadget.cli.flags.flag_declaration import Count, Names, Seconds, Switch, Text, TypedOnly, flag
from kubectl_gadget.cli.values import amounts
from kubectl_gadget.errors import UsageError
from kubectl_gadget.events.schema import TABLES, Gadget
from kubectl_gadget.session.run_options import RunOptions
from kubectl_gadget.views.tables.arrangement import Arrangement

PANEL = "Table"
_MOST_STACKS = 30
"""Default maximum of rows in a table of call stacks: there may be thousands, and the last ones matter least."""
_SEND_SECONDS = 5.0
"""Interval in which agents send their part of a profile that is shown at the end, in seconds."""
_WHOLE_STACKS = ("folded", "speedscope", "pprof")
"""Formats that are made of whole call stacks."""
_NEVER_SECONDS = 1e9
"""Replaces _SEND_SECONDS if parts cannot be added up."""


@dataclass(frozen=True)
class ArrangementFlags:
    """The given values. Field names are those of the parameters."""

    table_sort: tuple[str, ...] | None = None
    table_max_rows: int | None = None
    table_by: tuple[str, ...] | None = None
    table_interval: float | None = None
    table_once: bool | None = None
    table_tree: bool | None = None
    table_bars: int | None = None
    table_flame_graph: str | None = None
    table_diff: str | None = None


def arrangement_flags(gadget: Gadget) -> dict[str, object]:
    """The flags that this gadget has, by name, as taken by binding.bind()."""
    if gadget.kind not in TABLES:
        return {}
    default = f" (default: {gadget.table.sort})" if gadget.table.sort else ""
    sort = f"Sort by columns; -NAME: highest first{default}"
    rows = "Show at most this many rows" + (f" (default: {_MOST_STACKS})" if gadget.totals.weight else "")
    found: dict[str, object] = {
        "table_sort": Annotated[Names, flag(PANEL, "--sort NAMES", sort)],
        "table_max_rows": Annotated[Count, flag(PANEL, "--max-rows N", rows)],
    }
    if gadget.kind in ("top", "profile"):
        each = "one, at the end" if gadget.kind == "profile" else "1s"
        of = f" (default: {','.join(gadget.table.by)})" if gadget.table.by else ""
        by = f"Aggregate rows by these columns: node,pod{of}"
        found["table_by"] = Annotated[Names, flag(PANEL, "--by NAMES", by)]
        found["table_interval"] = Annotated[
            Seconds, flag(PANEL, "--interval TIME", f"Time between tables (default: {each})")
        ]
    if gadget.kind == "top":
        once = "Print one table, after one interval or --timeout"
        found["table_once"] = Annotated[Switch, flag(PANEL, "--once", once)]
    if gadget.totals.histogram:
        bars = "Draw this many histograms as bars (default: 3)"
        found["table_bars"] = Annotated[int | None, flag(PANEL, "--bars N", bars), amounts.zero_or_more]
    if gadget.totals.weight:
        flames = "Write a flame graph, .html or .svg; see also -o folded"
        found["table_flame_graph"] = _file_flag("--flame-graph FILE", flames)
        found["table_diff"] = _file_flag("--diff FILE", "Color it by the difference from this -o folded file")
    if gadget.totals.histogram:
        found["table_diff"] = _file_flag("--diff FILE", "Compare with this recording, made with -o json")
    if gadget.table.tree:
        found["table_tree"] = Annotated[Switch, flag(PANEL, "--tree", "Show processes below their parents")]
    return found


def _file_flag(shown: str, help: str) -> object:
    return Annotated[Text, flag(PANEL, shown, help), TypedOnly.FILES]


def arranged(options: RunOptions, given: Mapping[str, object]) -> RunOptions:
    """The run's options with the given values that are about its tables."""
    make: Callable[..., ArrangementFlags] = ArrangementFlags
    flags = make(**{name: value for name, value in given.items() if name in ArrangementFlags.__dataclass_fields__})
    found = _arrangement(options, flags)
    timeout = options.timeout or (found.interval if flags.table_once and options.replay is None else None)
    return replace(options, arrangement=found, timeout=timeout)


def _arrangement(options: RunOptions, flags: ArrangementFlags) -> Arrangement:
    gadget, format = options.gadgets[0].gadget, options.output.format
    _refuse_contradictions(gadget, flags, format)
    defaults = Arrangement()
    at_end = bool(flags.table_once) or (gadget.kind == "profile" and flags.table_interval is None)
    interval = defaults.interval if flags.table_interval is None else flags.table_interval
    if at_end and gadget.kind == "profile":
        interval = _NEVER_SECONDS if gadget.totals.gauge else _SEND_SECONDS
    max_rows = _MOST_STACKS if gadget.totals.weight and format in ("table", "wide") else None
    return Arrangement(
        sort=defaults.sort if flags.table_sort is None else flags.table_sort,
        max_rows=max_rows if flags.table_max_rows is None else flags.table_max_rows,
        by=gadget.table.by if flags.table_by is None else flags.table_by,
        tree=bool(flags.table_tree),
        lines=format in ("table", "wide"),
        interval=interval,
        at_end=at_end,
        bars=defaults.bars if flags.table_bars is None else flags.table_bars,
        flame_graph=flags.table_flame_graph or "",
        diff=flags.table_diff or "",
    )


def _refuse_contradictions(gadget: Gadget, flags: ArrangementFlags, format: str) -> None:
    if flags.table_by and (format in _WHOLE_STACKS or flags.table_flame_graph):
        what = "--flame-graph" if flags.table_flame_graph else f"-o {format}"
        raise UsageError(f"{what} needs whole call stacks, and --by aggregates them away", "use only one of them")
    if flags.table_diff and not flags.table_flame_graph and not gadget.totals.histogram:
        raise UsageError("--diff needs a flame graph", "--flame-graph FILE.html")
