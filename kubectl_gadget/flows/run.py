"""A run of `flows`: its gadgets, and the transform that makes events of flows of their rows.

Rows of packets that netfilter drops need their call stacks, which show the hook; rows of TCP and UDP need periodic
reports, or a long flow would be seen only at its beginning and its end.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from kubectl_gadget import gadgets
from kubectl_gadget.flows.ends import GADGETS, FlowEnd
from kubectl_gadget.flows.filter import FlowFilter
from kubectl_gadget.flows.flow import FlowEvent
from kubectl_gadget.flows.joiner import COLUMNS, FlowTable, Row
from kubectl_gadget.flows.rows import GADGET, batch_of
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.rows import NO_ROWS, Rows
from kubectl_gadget.rows.vectors import Mask
from kubectl_gadget.run.run_options import GadgetRun

_HEADERS = 96
"""bytes of a packet that contain its headers"""


@dataclass(frozen=True)
class FlowGadgets:
    """The gadgets besides connections."""

    drops: bool = True
    dns: bool = True
    http: bool = False
    packets: bool = False
    """a row for each packet of TCP and UDP"""
    processes: bool = False
    """for views that show which process started which"""
    report_seconds: float = 1
    """time between two reports of an open flow"""

    def command(self) -> tuple[str, ...]:
        """The beginning of the command that replays a recording."""
        flags = {
            "--no-drops": not self.drops,
            "--no-dns-rows": not self.dns,
            "--http-rows": self.http,
            "--packets": self.packets,
        }
        return ("flows", *(name for name, given in flags.items() if given))

    def runs(self) -> tuple[GadgetRun, ...]:
        """The gadgets, in the order in which agents are asked to run them. trace tcpdrop keeps the owners of sockets
        for those that come after it."""
        interval = round(self.report_seconds * 1000)
        chosen: tuple[tuple[str, bool, dict[str, object]], ...] = (
            ("trace_tcp", True, {"reports": True, "report-interval": interval}),
            ("trace_tcpdrop", self.drops, {"udp": True, "netfilter-stack": True}),
            ("trace_udp", True, {"interval": interval, "sctp": True}),
            ("trace_icmp", True, {"interval": interval}),
            ("trace_dns", self.dns, {}),
            ("trace_http", self.http, {}),
            ("tcpdump", self.packets, {"snaplen": _HEADERS}),
            ("trace_process", self.processes, {}),
        )
        return tuple(GadgetRun(gadgets.load_gadget(name), found) for name, wanted, found in chosen if wanted)


# The transform. Late rows are older than all others of a chunk, and their flows may have been shown already. So they
# are added first, and the events that they make are marked as late.


_ROWS_AT_ONCE = 65536
"""Rows as objects take ten times their size, and each chunk some time whatever its number of rows."""


class FlowTransform:
    """Returns the events of flows that pass the conditions. `watch` gets all rows."""

    gadget: Gadget = GADGET

    def __init__(
        self, table: FlowTable, conditions: FlowFilter, watch: Callable[[Rows], object] = lambda rows: None
    ) -> None:
        self._table = table
        self._conditions = conditions
        self._watch = watch
        self._members = MemberRows(COLUMNS, event=True)

    def apply(self, rows: Rows) -> Rows:
        self._watch(rows)
        chunks = rows.chunks(_ROWS_AT_ONCE)
        events = [event for chunk in chunks for event in self._conditions.select(self._add(chunk))]
        return Rows([batch_of(events)]) if events else NO_ROWS

    def notes(self) -> Iterable[str]:
        """Return nothing: the command line says how many events the conditions have hidden."""
        return ()

    def _add(self, rows: Rows) -> Sequence[FlowEvent]:
        items = rows.collect(self._read)
        if all(part.late is None for part in rows.parts):
            return self._table.add_all(items)
        count = int(rows.mask(_late).sum())
        late = [event._replace(late=True) for event in self._table.add_all(items[:count])]
        return late + self._table.add_all(items[count:])

    def _read(self, batch: Batch) -> Sequence[FlowEnd | Row]:
        return self._table.ends.read(batch) if batch.gadget.name in GADGETS else self._members.records_of(batch)


def _late(batch: Batch) -> Mask:
    return np.zeros(len(batch), np.bool_) if batch.late is None else batch.late
