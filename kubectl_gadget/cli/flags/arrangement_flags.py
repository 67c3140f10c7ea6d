"""Flags of gadgets that are no streams: how their tables are sorted, cut and added up.

The trap: columns are checked against the gadget in session.run, before anything is started, as those of --columns are.
"""

from dataclasses import replace
from typing import Annotated, Any

from kubectl_gadget.cli import values
from kubectl_gadget.cli.flags.flag_sets import flag
from kubectl_gadget.errors import UsageError
from kubectl_gadget.events.schema import TABLES, Gadget
from kubectl_gadget.session.options import RunOptions
from kubectl_gadget.views.tables.arrangement import Arrangement

PANEL = "Table"
_MOST_STACKS = 30
"""Rows of a table of call stacks: there may be thousands, and the last ones tell nothing."""
_SEND_SECONDS = 5.0
"""How often agents send their part of a profile that is shown at its end."""
_WHOLE_STACKS = ("folded", "speedscope", "pprof")
"""Formats that are made of whole call stacks."""
_NEVER_SECONDS = 1e9
"""In the place of that, where parts cannot be added up."""
_SORT, _ROWS, _BY, _INTERVAL, _ONCE, _TREE, _BARS, _FLAMES, _DIFF = (
    f"table_{name}" for name in ("sort", "max_rows", "by", "interval", "once", "tree", "bars", "flame_graph", "diff")
)


def arrangement_flags(gadget: Gadget) -> dict[str, Any]:
    """By name, as binding.flattened() takes them."""
    if gadget.kind not in TABLES:
        return {}
    default = f" (default: {gadget.sort})" if gadget.sort else ""
    sort = f"By columns; -NAME: the highest first{default}"
    rows = "Only the first rows of a table" + (f" (default: {_MOST_STACKS})" if gadget.weight else "")
    found: dict[str, Any] = {
        _SORT: Annotated[tuple[str, ...] | None, flag(PANEL, "--sort", metavar="NAMES", help=sort), values.commas],
        _ROWS: Annotated[int | None, flag(PANEL, "--max-rows", metavar="N", help=rows), values.count],
    }
    if gadget.kind in ("top", "profile"):
        each = "one, at the end" if gadget.kind == "profile" else "1s"
        of = f" (default: {','.join(gadget.by)})" if gadget.by else ""
        by = f"Add up all rows that agree in these columns: node,pod{of}"
        found[_BY] = Annotated[tuple[str, ...] | None, flag(PANEL, "--by", metavar="NAMES", help=by), values.commas]
        found[_INTERVAL] = Annotated[
            float | None,
            flag(PANEL, "--interval", metavar="TIME", help=f"A table for each such time (default: {each})"),
            values.duration_above_zero,
        ]
    if gadget.kind == "top":
        once = "One table, of one interval or of --timeout"
        found[_ONCE] = Annotated[bool | None, flag(PANEL, "--once/--no-once", help=once), lambda value: value]
    if gadget.histogram:
        bars = "Draw this many histograms as bars (default: 3)"
        found[_BARS] = Annotated[int | None, flag(PANEL, "--bars", metavar="N", help=bars), values.zero_or_more]
    if gadget.weight:
        flames = "Flame graph, .html or .svg; or -o folded speedscope pprof"
        found[_FLAMES] = Annotated[
            str | None, flag(PANEL, "--flame-graph", metavar="FILE", help=flames), values.some_text
        ]
        diff = "Colour it by the difference to this file of -o folded"
        found[_DIFF] = Annotated[str | None, flag(PANEL, "--diff", metavar="FILE", help=diff), values.some_text]
    if gadget.histogram:
        diff = "Compare with this recording, made with -o json"
        found[_DIFF] = Annotated[str | None, flag(PANEL, "--diff", metavar="FILE", help=diff), values.some_text]
    if gadget.tree:
        found[_TREE] = Annotated[
            bool | None, flag(PANEL, "--tree/--no-tree", help="Processes below their parents"), lambda value: value
        ]
    return found


def arranged(options: RunOptions, extras: dict[str, Any]) -> RunOptions:
    """The run with what was given of them."""
    found = _arrangement(options, extras)
    timeout = options.timeout or (found.interval if extras.get(_ONCE) else None)
    return replace(options, arrangement=found, timeout=timeout)


def _arrangement(options: RunOptions, extras: dict[str, Any]) -> Arrangement:
    defaults = Arrangement()
    gadget = options.gadgets[0].gadget
    at_end = bool(extras.get(_ONCE)) or (gadget.kind == "profile" and _INTERVAL not in extras)
    format = options.output.format
    if extras.get(_BY) and (format in _WHOLE_STACKS or _FLAMES in extras):
        what = "--flame-graph" if _FLAMES in extras else f"-o {format}"
        raise UsageError(f"{what} is made of whole call stacks, and --by leaves them out", "one without the other")
    if _DIFF in extras and _FLAMES not in extras and not gadget.histogram:
        raise UsageError("--diff is for flame graphs", "--flame-graph FILE.html")
    return Arrangement(
        sort=extras.get(_SORT, defaults.sort),
        max_rows=extras.get(_ROWS, _MOST_STACKS if gadget.weight and format in ("table", "wide") else None),
        by=extras.get(_BY, gadget.by),
        tree=bool(extras.get(_TREE)),
        lines=format in ("table", "wide"),
        interval=(_NEVER_SECONDS if gadget.gauge else _SEND_SECONDS)
        if at_end and gadget.kind == "profile"
        else extras.get(_INTERVAL, defaults.interval),
        at_end=at_end,
        bars=int(extras.get(_BARS, defaults.bars)),
        flame_graph=extras.get(_FLAMES, defaults.flame_graph),
        diff=extras.get(_DIFF, defaults.diff),
    )
