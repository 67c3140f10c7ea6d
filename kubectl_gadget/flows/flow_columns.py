"""Lines of CSV: the members of JSON; those of an end are named `source.pod` and so on, and are empty where there is no
value."""

from typing import Any

from kubectl_gadget.flows.flow import FORWARDED, Flow, FlowEvent, Party
from kubectl_gadget.flows.records import DENIED_BY, record
from kubectl_gadget.output.escape import csv_line
from kubectl_gadget.output.machine import csv_cell
from kubectl_gadget.output.row_texts import LATE


def csv_header() -> str:
    """The names of the columns, as a line of CSV."""
    party = Party("0.0.0.0", 0)
    return csv_line(flat(FlowEvent(0, "", "new", Flow("TCP", party, party, True, 0), FORWARDED, ""), False))


def flat(event: FlowEvent, escaped: bool) -> dict[str, Any]:
    """The cells of CSV by the names of their columns. `escaped`: for a terminal."""
    found, cells = record(event), dict[str, Any]()
    inner = {"source": (), "destination": (), "backend": found["source"], "denied_by": DENIED_BY}
    late = found.pop(LATE, "")
    for name, value in found.items():
        if name in inner:
            parts = value or dict.fromkeys(inner[name])
            cells |= {f"{name}.{part}": csv_cell(text, escaped) for part, text in parts.items()}
        else:
            cells[name] = csv_cell(value, escaped)
    return cells | {LATE: csv_cell(late, escaped)}
