"""The names of tables: one for each gadget, and those that a query derives from several."""

import re

from kubectl_gadget.events.schema import Gadget

CONTAINERS, PROCESS, FLOWS = "containers", "process", "flows"


def table_name(gadget: Gadget) -> str:
    """The name of a gadget's table: that of its rows for `trace`, and with its verb for others: open, top_tcp. The
    rows of `trace process` are in process_events, since `process` has a row for each process."""
    words = gadget.command[1:] if gadget.command[0] == "trace" and len(gadget.command) > 1 else gadget.command
    name = re.sub(r"\W+", "_", "_".join(words), flags=re.ASCII).lower()[:64] or "events"
    return f"{name}_events" if name in (CONTAINERS, PROCESS, FLOWS) else name
