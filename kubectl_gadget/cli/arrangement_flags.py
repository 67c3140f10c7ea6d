"""Flags of gadgets that are no streams: how their tables are sorted, cut and added up.

The trap: columns are checked against the gadget in session.run, before anything is started, as those of --columns are.
"""

from typing import Annotated, Any

from kubectl_gadget.cli import values
from kubectl_gadget.cli.flags import flag
from kubectl_gadget.events.schema import TABLES, Gadget
from kubectl_gadget.session.options import RunOptions
from kubectl_gadget.views.arrangement import Arrangement

PANEL = "Table"
_SEND_SECONDS = 5.0
"""How often agents send their part of a profile that is shown at its end."""
_SORT, _ROWS, _BY, _INTERVAL, _TREE, _BARS = (
    f"table_{name}" for name in ("sort", "max_rows", "by", "interval", "tree", "bars")
)


def arrangement_flags(gadget: Gadget) -> dict[str, Any]:
    """By name, as binding.flattened() takes them."""
    if gadget.kind not in TABLES:
        return {}
    default = f" (default: {gadget.sort})" if gadget.sort else ""
    sort = f"Sort by these columns; -NAME: the highest first{default}"
    found: dict[str, Any] = {
        _SORT: Annotated[tuple[str, ...] | None, flag(PANEL, "--sort", metavar="NAMES", help=sort), values.commas],
        _ROWS: Annotated[
            int | None, flag(PANEL, "--max-rows", metavar="N", help="Only the first rows of a table"), values.count
        ],
    }
    if gadget.kind in ("top", "profile"):
        each = "one table, at the end" if gadget.kind == "profile" else "1s"
        of = f" (default: {','.join(gadget.by)})" if gadget.by else ""
        by = f"Add up all rows that agree in these columns, over containers and nodes: pod{of}"
        found[_BY] = Annotated[tuple[str, ...] | None, flag(PANEL, "--by", metavar="NAMES", help=by), values.commas]
        found[_INTERVAL] = Annotated[
            float | None,
            flag(PANEL, "--interval", metavar="TIME", help=f"How long each table adds up (default: {each})"),
            values.duration_above_zero,
        ]
    if gadget.histogram:
        bars = "How many of the histograms are drawn as bars below the table (default: 3)"
        found[_BARS] = Annotated[int | None, flag(PANEL, "--bars", metavar="N", help=bars), values.zero_or_more]
    if gadget.tree:
        found[_TREE] = Annotated[
            bool | None, flag(PANEL, "--tree/--no-tree", help="Processes below their parents"), lambda value: value
        ]
    return found


def arrangement(options: RunOptions, extras: dict[str, Any]) -> Arrangement:
    """What was given of them."""
    defaults = Arrangement()
    gadget = options.gadgets[0].gadget
    at_end = gadget.kind == "profile" and _INTERVAL not in extras
    return Arrangement(
        sort=extras.get(_SORT, defaults.sort),
        max_rows=extras.get(_ROWS),
        by=extras.get(_BY, gadget.by),
        tree=bool(extras.get(_TREE)),
        lines=options.output.format in ("table", "wide"),
        interval=_SEND_SECONDS if at_end else extras.get(_INTERVAL, defaults.interval),
        at_end=at_end,
        bars=int(extras.get(_BARS, defaults.bars)),
    )
