"""Finds the client's flow for a flow that a server behind a service's address sees.

The client's node knows the service's address, the server's node knows the server's own, and both know the client's
address and port. The trap: a client may use one port for several servers at once. So when more than one flow is
possible, the cluster has to say which service leads to the server; otherwise no flows are joined.
"""

from collections.abc import Sequence

from kubectl_gadget.flows.address_book import AddressBook
from kubectl_gadget.flows.flow import Flow
from kubectl_gadget.flows.joining.plain_flows import ClientKey, PlainConnections

_APART_NS = 30_000_000_000
"""The longest time between the first rows of the two ends."""
_SOONER = 30


class Clients:
    """Flows by their client's end, with addresses that are unique in the network."""

    def __init__(self, book: AddressBook, plain: PlainConnections) -> None:
        self._book = book
        self._plain = plain
        self.flows: dict[ClientKey, Flow | int | list[Flow]] = {}

    def add(self, flow: Flow) -> None:
        """Adds a flow that has begun."""
        key = (flow.protocol, flow.client.ip, flow.client.port)
        before = self.flows.setdefault(key, flow)
        if before is not flow:
            self.flows[key] = [*(known for known in self._all(before) if not known.closed), flow]

    def forget(self, flow: Flow) -> None:
        """Removes a flow."""
        key = (flow.protocol, flow.client.ip, flow.client.port)
        left = [known for known in self._all(self.flows.get(key, [])) if known is not flow]
        if left:
            self.flows[key] = left
        else:
            self.flows.pop(key, None)

    def find(self, key: tuple[str, str, str, int, str, int], side: str, time_ns: int) -> Flow | None:
        """The flow that is the same as the one with this key (open_flows.py), as seen by `side`; None: there is none,
        or it is ambiguous."""
        known_ones = self.flows.get(key[1:4])
        if known_ones is None:
            return None
        server = key[4:]
        mine, others = ("by_client", "by_server") if side == "client" else ("by_server", "by_client")
        found = [
            flow
            for flow in self._all(known_ones)
            if getattr(flow, others)
            and not getattr(flow, mine)
            and flow.backend is None
            and _apart_ns(flow, time_ns) < _APART_NS
        ]
        if not found:
            return None
        known = [flow for flow in found if self._leads(flow, server, side)]
        if known:
            return known[0]
        asked = [server[0]] if side == "client" else [flow.server.ip for flow in found]
        if len(found) > 1 or any(map(self._book.is_own, asked)):
            return None
        return found[0]

    def _leads(self, flow: Flow, server: tuple[str, int], side: str) -> bool:
        """Whether the cluster says that the address the client called leads to the server."""
        seen = (flow.server.ip, flow.server.port)
        service, backend = (seen, server) if side == "server" else (server, seen)
        return service in self._book.cluster.services_of_backend.get(backend[0], ())

    def _all(self, known: Flow | int | list[Flow]) -> Sequence[Flow]:
        """The flows as a sequence. Most clients have a single one, which is stored without a list."""
        if isinstance(known, int):
            return (self._plain.as_flow(known),)
        return (known,) if isinstance(known, Flow) else known


def _apart_ns(flow: Flow, time_ns: int) -> int:
    if flow.closed and time_ns > flow.ended_ns:
        # Late rows of a flow that has ended arrive soon after its end.
        return (time_ns - flow.ended_ns) * _SOONER
    return abs(time_ns - flow.first_ns)
