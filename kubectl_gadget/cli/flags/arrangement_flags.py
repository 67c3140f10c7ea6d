"""Flags of gadgets that are not streams: how their tables are sorted, truncated and aggregated.

A gadget has those that make sense for it. The trap: columns are checked against the gadget in
session.run, before anything is started, like those of --columns.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated

from kubectl_gadget.cli.flags.flag_declaration import Count, Names, Seconds, Switch, Text, flag
from kubectl_gadget.cli.values import amounts
from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.schema import TABLES, Gadget
from kubectl_gadget.output.registry import PROFILES
from kubectl_gadget.rows.arrangement import Arrangement
from kubectl_gadget.run.run_options import RunOptions

PANEL = "Table"
_MOST_STACKS = 30
"""Default maximum of rows in a table of call stacks: there may be thousands, and the last ones matter least."""
_SEND_SECONDS = 5.0
"""Interval in which agents send their part of a profile that is shown at the end, in seconds."""
_NEVER_SECONDS = 1e9
"""Replaces _SEND_SECONDS if parts cannot be added up."""


_PREFIX = "table_"
"""Of the names of flags; the rest is the name of a field of Arrangement, or `once`."""


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
    return Annotated[Text, flag(PANEL, shown, help)]


def arranged(options: RunOptions, given: Mapping[str, object]) -> RunOptions:
    """The run's options with the given values that are about its tables."""
    flags = {name.removeprefix(_PREFIX): value for name, value in given.items() if name.startswith(_PREFIX)}
    once = bool(flags.pop("once", False))
    found = _arrangement(options, flags, once)
    timeout = options.timeout or (found.interval if once and options.replay is None else None)
    return replace(options, arrangement=found, timeout=timeout)


def _arrangement(options: RunOptions, flags: dict[str, object], once: bool) -> Arrangement:
    gadget, format = options.gadgets[0].gadget, options.output.format
    _refuse_contradictions(gadget, flags, format)
    at_end, is_table = once or (gadget.kind == "profile" and "interval" not in flags), format in ("table", "wide")
    if at_end and gadget.kind == "profile":
        flags["interval"] = _NEVER_SECONDS if gadget.totals.gauge else _SEND_SECONDS
    usual: dict[str, object] = {
        "by": gadget.table.by,
        "max_rows": _MOST_STACKS if gadget.totals.weight and is_table else None,
    }
    make: Callable[..., Arrangement] = Arrangement
    return make(**{**usual, **flags}, lines=is_table, at_end=at_end)


def _refuse_contradictions(gadget: Gadget, flags: Mapping[str, object], format: str) -> None:
    flame_graph = flags.get("flame_graph")
    if flags.get("by") and (format in PROFILES or flame_graph):
        what = "--flame-graph" if flame_graph else f"-o {format}"
        raise UsageError(f"{what} needs whole call stacks, and --by aggregates them away", "use only one of them")
    if flags.get("diff") and not flame_graph and not gadget.totals.histogram:
        raise UsageError("--diff needs a flame graph", "--flame-graph FILE.html")
