"""Finds the client's flow for a flow that a server sees, when the client's address was translated on the way
(masquerading).

Both ends then see different addresses, but the same sequence number of the SYN, which the client chooses at random from
32 bits. The trap: something on the way may make connections of its own (a proxy, synproxy); such a flow is two flows,
and stays two.
"""

from collections import OrderedDict

from kubectl_gadget.flows.flow import Flow
from kubectl_gadget.flows.joining.endpoint_rows import FlowEnd
from kubectl_gadget.flows.joining.plain_flows import PlainConnections

_MOST = 65536
_APART_NS = 30_000_000_000


class Translated:
    """Flows of which only the client's end has been seen, by the sequence number of their SYN."""

    def __init__(self, plain: PlainConnections) -> None:
        self._plain = plain
        self.flows: OrderedDict[int, Flow | int] = OrderedDict()

    def note(self, sequence: int, flow: Flow | int) -> None:
        """Records that a client has connected."""
        before = self.flows.get(sequence)
        self.flows[sequence] = flow
        if isinstance(flow, int):
            self._plain.pins[flow] += 1
        if before is None and len(self.flows) > _MOST:
            _, before = self.flows.popitem(last=False)
        if isinstance(before, int):
            self._plain.unpin(before)

    def find(self, row: FlowEnd, key: tuple[str, str, str, int, str, int]) -> Flow | None:
        """The flow that a server accepts, with this key (open_flows.py) at its end; None: it is none of the known
        flows."""
        if not row.sequence or row.operation != "accept":
            return None
        flow = self.flows.pop(row.sequence, None)
        if isinstance(flow, int):
            slot, flow = flow, self._plain.as_flow(flow)
            self._plain.unpin(slot)
        if flow is None or flow.by_server or flow.backend is not None:
            return None
        if abs(row.time_ns - max(row.duration, 0) - flow.first_ns) > _APART_NS:
            return None
        flow.translated = key
        return flow
