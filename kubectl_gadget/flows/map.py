"""The service map: who talks to whom, summed by workload, service or address; as text, DOT and Mermaid.

Note: names are hostile text, and DOT and Mermaid each have their own quoting.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from kubectl_gadget.flows.flow import DROPPED, FORWARDED, Flow, FlowEvent, Party, Who
from kubectl_gadget.output.escape import escape
from kubectl_gadget.rows.amounts import bytes_text
from kubectl_gadget.wording import count

_MOST_PORTS, _MOST_PROCESSES = 1000, 100
"""On one edge. Containers choose ports and names."""
_OTHER_PORTS = "other ports"


@dataclass(slots=True)
class PortCounts:
    """The counts of one port of an edge."""

    flows: int = 0
    dropped: int = 0
    failed: int = 0

    @property
    def has_trouble(self) -> bool:
        return self.dropped + self.failed > 0


@dataclass(slots=True)
class Edge:
    """The traffic from one node of the map to another."""

    flows: int = 0
    dropped: int = 0
    failed: int = 0
    requests: int = 0
    sent: int = 0
    received: int = 0
    ports: dict[str, PortCounts] = field(default_factory=dict)
    """by port and protocol: 80/TCP"""
    processes: set[str] = field(default_factory=set)
    """names of the client's processes"""

    def port(self, name: str) -> PortCounts:
        """Return the counts of a port, or of all further ones if there are too many."""
        if name not in self.ports and len(self.ports) >= _MOST_PORTS:
            name = _OTHER_PORTS
        return self.ports.setdefault(name, PortCounts())

    def note_process(self, name: str) -> None:
        if len(self.processes) < _MOST_PROCESSES:
            self.processes.add(name)

    def take(self, other: "Edge") -> None:
        """Adds the remaining counts of an edge that is removed."""
        self.dropped += other.dropped
        self.failed += other.failed
        self.requests += other.requests
        for process in other.processes:
            self.note_process(process)
        for name, counts in other.ports.items():
            own = self.port(name)
            own.dropped += counts.dropped
            own.failed += counts.failed

    @property
    def trouble(self) -> str:
        """`all` when every port had trouble, `some` when only some had, else empty."""
        having = sum(counts.has_trouble for counts in self.ports.values())
        return "" if not having else "all" if having == len(self.ports) else "some"

    def sorted_ports(self) -> list[tuple[str, PortCounts]]:
        """The ports: those with trouble first, then by number of flows, largest first."""
        return sorted(self.ports.items(), key=lambda item: (not item[1].has_trouble, -item[1].flows, item[0]))


class MapNode(NamedTuple):
    """A node of the map: all pods of one workload, a service, a node of the cluster, or the outside world."""

    group: str
    """the namespace; empty outside of any"""
    name: str
    kind: str


_SERVER_ERROR = 500
_GRPC_ERRORS = frozenset({2, 4, 12, 13, 14, 15})
"""as OpenTelemetry counts errors of servers: unknown, deadline exceeded, unimplemented, internal, unavailable, data
loss"""
_MOST_MISSING = 500
_Ends: TypeAlias = tuple[MapNode, MapNode]
_WORLD = "World"
"""The kind of anything that is not known to be in a cluster."""


@dataclass(slots=True)
class _Shown:
    """The counts of a flow in the map, and their place; valid while the flow has these ends."""

    edge: Edge
    port: PortCounts
    ends: _Ends
    sent: int
    received: int
    client: Who
    front: Party
    """the server, as the client addresses it"""
    server: Party
    server_who: Who


class FlowGraph:
    """Edges by client and server. `add` takes every event of a run."""

    def __init__(self, most: int = 10_000) -> None:
        self.edges: dict[tuple[MapNode, MapNode], Edge] = {}
        self.left_out = 0
        """events between places that would have exceeded the limit"""
        self._most = most
        self._nameless: OrderedDict[int, Flow] = OrderedDict()
        """flows with an end known only by its address, which the other node may still name"""
        self._missing: OrderedDict[tuple[_Ends, str], tuple[_Shown, bool]] = OrderedDict()
        """names that do not exist, by who asked, until it is known that they are no attempts of a resolver; and whether
        an earlier settle() has seen them"""

    def add(self, event: FlowEvent) -> tuple[_Ends, _Ends | None]:
        """Counts an event: new flows, and the bytes since the flow's previous event.

        Returns the edge that it belongs to, and an edge that was removed because its end has another name now.
        """
        flow, vanished = event.flow, None
        shown: _Shown | None = flow.on_map
        client, server = flow.client.who, flow.backend or flow.server
        if (
            shown is None
            or shown.client is not client
            or shown.server is not server
            or shown.server_who is not server.who
            or shown.front is not flow.server
        ):
            ends = place(flow.client), place(server)
            shown, vanished = self._show(flow, ends)
            if shown is None:
                return ends, vanished
        edge = shown.edge
        if flow.sent != shown.sent or flow.received != shown.received:
            edge.sent += flow.sent - shown.sent
            edge.received += flow.received - shown.received
            shown.sent, shown.received = flow.sent, flow.received
        found = outcome(event)
        if found == "dropped":
            edge.dropped += 1
            shown.port.dropped += 1
        elif found == "failed":
            _fails(shown)
        elif event.l7 is not None and event.l7.get("rcode"):
            self._answered(shown, str(event.l7["name"]).rstrip("."), found == "missing")
        edge.requests += event.l7 is not None
        return shown.ends, vanished

    def add_all(self, events: Sequence[FlowEvent]) -> None:
        for event in events:
            self.add(event)

    def _answered(self, shown: _Shown, name: str, is_missing: bool) -> None:
        """DNS answered about a name. What was missing before and begins with it were attempts with the domains of a
        search list (resolv.conf(5)), which say nothing."""
        attempts = [key for key in self._missing if key[0] == shown.ends and key[1].startswith(f"{name}.")]
        for key in attempts:
            del self._missing[key]
        if is_missing:
            self._missing[shown.ends, name] = shown, False
            if len(self._missing) > _MOST_MISSING:
                _fails(self._missing.popitem(last=False)[1][0])

    def settle(self, is_over: bool = True) -> list[tuple[_Ends, _Ends | None]]:
        """Moves flows to the edges to which they belong by now: a row that made no event may have named an end; and
        counts names that do not exist. `is_over`: there is nothing to wait for. Returns the edges that have changed and
        those that were removed, like add()."""
        moved: list[tuple[_Ends, _Ends | None]] = []
        for key, (one, is_old) in list(self._missing.items()):
            if is_over or is_old:
                del self._missing[key]
                _fails(one)
                moved.append((one.ends, None))
            else:
                self._missing[key] = one, True
        for number, flow in list(self._nameless.items()):
            shown: _Shown | None = flow.on_map
            ends = place(flow.client), place(flow.backend or flow.server)
            if shown is not None and shown.ends != ends:
                moved.append((ends, self._show(flow, ends)[1]))
            if flow.closed or not _is_nameless(ends):
                self._nameless.pop(number, None)
        return moved

    def _show(self, flow: Flow, ends: _Ends) -> "tuple[_Shown | None, _Ends | None]":
        """Puts a flow on its edge, or moves it to another when its ends have other names now. Returns what is counted
        for it, None when there are too many edges; and the edge that was removed."""
        shown: _Shown | None = flow.on_map
        vanished = None
        if shown is not None and shown.ends != ends:
            vanished, shown = self._move(flow, shown, ends), None
        edge = self.edges.get(ends)
        if edge is None:
            if len(self.edges) >= self._most:
                self.left_out += 1
                return None, vanished
            edge = self.edges[ends] = Edge()
        edge.flows += shown is None
        if flow.client.who.comm:
            edge.note_process(flow.client.who.comm)
        front, server = flow.server, flow.backend or flow.server
        if shown is None or shown.front is not front:
            if shown is not None:
                _leave_port(shown)
            name = f"{front.port}/{flow.protocol}" if front.port else flow.protocol
            port = edge.port(name)
            port.flows += 1
        else:
            port = shown.port
        counted = (shown.sent, shown.received) if shown else (0, 0)
        flow.on_map = _Shown(edge, port, ends, *counted, flow.client.who, front, server, server.who)
        if _is_nameless(ends):
            self._nameless[id(flow)] = flow
            if len(self._nameless) > self._most:
                self._nameless.popitem(last=False)
        return flow.on_map, vanished

    def _move(self, flow: Flow, shown: "_Shown", ends: _Ends) -> _Ends | None:
        """Removes a flow from its edge so that it can move to another. Returns the edge if it was removed."""
        flow.on_map = None
        _leave_port(shown)
        old = shown.edge
        old.flows, old.sent, old.received = old.flows - 1, old.sent - shown.sent, old.received - shown.received
        if old.flows > 0:
            return None
        del self.edges[shown.ends]
        self.edges.setdefault(ends, Edge()).take(old)
        return shown.ends


def outcome(event: FlowEvent) -> str:
    """`dropped`, `failed`, `missing` for a name that DNS does not know, or empty: all is well."""
    if event.verdict != FORWARDED:
        return "dropped" if event.verdict == DROPPED else "failed"
    said = event.l7 or {}
    rcode, status = said.get("rcode"), said.get("status")
    if rcode == "NXDOMAIN":
        return "missing"
    is_server_error = isinstance(status, int) and status >= _SERVER_ERROR
    failed = (rcode or "NOERROR") != "NOERROR" or is_server_error or said.get("grpc_status_raw") in _GRPC_ERRORS
    return "failed" if failed else ""


def _fails(shown: "_Shown") -> None:
    shown.edge.failed += 1
    shown.port.failed += 1


def _leave_port(shown: "_Shown") -> None:
    """Removes a flow from the count of its port, and the port if it has no other flow and had no trouble."""
    shown.port.flows -= 1
    if shown.port.flows <= 0 and not shown.port.has_trouble:
        ports = shown.edge.ports
        for name in [name for name, counts in ports.items() if counts is shown.port]:
            del ports[name]


def _is_nameless(ends: _Ends) -> bool:
    return ends[0].kind == _WORLD or ends[1].kind == _WORLD


def place(party: Party) -> MapNode:
    """The place of a party on the map."""
    who = party.who
    if who.cached_place is None:
        found = _place(party)
        if not who.name:
            return found  # depends on the address, so it cannot be cached
        who.cached_place = found
    kept: MapNode = who.cached_place
    return kept


def _place(party: Party) -> MapNode:
    pod = party.who.pod
    if pod is not None:
        workload = pod.workload
        return MapNode(pod.namespace, workload.name if workload else pod.name, workload.kind if workload else "Pod")
    if party.who.entity in ("kubelet", "kube-apiserver"):
        return MapNode("", party.who.name, "Node")
    if party.who.service:
        namespace, _, name = party.who.service.partition("/")
        return MapNode(namespace, name, "Service")
    if party.who.entity == "node":
        return MapNode("", party.who.node or party.ip, "Node")
    return MapNode("", party.name, "Pod" if party.who.entity in ("pod", "no pod") else _WORLD)


_TERMINAL_COLORS = {"all": 31, "some": 33}
_COLORS = {"all": "red", "some": "orange"}
"""Colors of edges: all ports had trouble, or some."""


def text_map(graph: FlowGraph, color: bool = False) -> str:
    """One block per client, one line per server; printed to a terminal at the end."""
    lines: list[str] = []
    by_client: dict[MapNode, list[tuple[MapNode, Edge]]] = {}
    for (client, server), edge in graph.edges.items():
        by_client.setdefault(client, []).append((server, edge))
    width = max((len(_title(server)) for _, server in graph.edges), default=0)
    for client in sorted(by_client):
        lines.append(escape(_title(client)))
        found = sorted(by_client[client], key=lambda item: (-item[1].sent - item[1].received, item[0]))
        for number, (server, edge) in enumerate(found):
            branch = "└─▶" if number == len(found) - 1 else "├─▶"
            text = f"  {branch} {escape(_title(server)).ljust(width)}  {_label(edge)}"
            if color and edge.trouble:
                text = f"\x1b[{_TERMINAL_COLORS[edge.trouble]}m{text}\x1b[0m"
            lines.append(text)
    return "\n".join(lines) + "\n" if lines else "no flows\n"


def dot(graph: FlowGraph) -> str:
    """The graph in Graphviz' language; namespaces are clusters."""
    lines = ["digraph flows {", "  rankdir=LR;", '  node [shape=box, style=rounded, fontname="sans-serif"];']
    numbers = _numbers(graph)
    for number, (group, members) in enumerate(_groups(numbers)):
        indent = "  "
        if group:
            lines += [f"  subgraph cluster_{number} {{", f"    label={_dot_text(group)};"]
            indent = "    "
        lines += [f"{indent}n{numbers[found]} [label={_dot_text(_label_of(found))}];" for found in members]
        if group:
            lines.append("  }")
    for (client, server), edge in graph.edges.items():
        color = f", color={_COLORS[edge.trouble]}" if edge.trouble else ""
        lines.append(f"  n{numbers[client]} -> n{numbers[server]} [label={_dot_text(_label(edge))}{color}];")
    return "\n".join([*lines, "}"]) + "\n"


def mermaid(graph: FlowGraph) -> str:
    """The graph as a Mermaid flowchart; namespaces are subgraphs."""
    lines = ["flowchart LR"]
    numbers = _numbers(graph)
    for number, (group, members) in enumerate(_groups(numbers)):
        if group:
            lines.append(f"  subgraph g{number}[{_mermaid_text(group)}]")
        lines += [f"    n{numbers[found]}[{_mermaid_text(_label_of(found))}]" for found in members]
        if group:
            lines.append("  end")
    for number, ((client, server), edge) in enumerate(graph.edges.items()):
        lines.append(f"  n{numbers[client]} -->|{_mermaid_text(_label(edge))}| n{numbers[server]}")
        if edge.trouble:
            lines.append(f"  linkStyle {number} stroke:{_COLORS[edge.trouble]}")
    return "\n".join(lines) + "\n"


def _numbers(graph: FlowGraph) -> dict[MapNode, int]:
    return {found: number for number, found in enumerate(sorted({end for ends in graph.edges for end in ends}))}


def _groups(places: Iterable[MapNode]) -> list[tuple[str, list[MapNode]]]:
    groups: dict[str, list[MapNode]] = {}
    for found in places:
        groups.setdefault(found.group, []).append(found)
    return sorted(groups.items())


def _title(found: MapNode) -> str:
    return f"{found.group}/{found.name}" if found.group else f"{found.name} ({found.kind.lower()})"


def _label_of(found: MapNode) -> str:
    return found.name if found.kind == "Pod" else f"{found.name} ({found.kind})"


def _label(edge: Edge) -> str:
    ports, several = edge.sorted_ports(), len(edge.ports) > 1
    shown = [f"{name} ({_trouble(counts)})" if several and counts.has_trouble else name for name, counts in ports[:3]]
    parts = [", ".join(shown) + (", …" if len(ports) > 3 else ""), count(edge.flows, "flow")]
    if edge.requests:
        parts.append(count(edge.requests, "request"))
    parts.append(f"{bytes_text(edge.sent)} out, {bytes_text(edge.received)} in")
    return "  ".join([*parts, *filter(None, [_trouble(edge)])])


def _trouble(counts: Edge | PortCounts) -> str:
    """`2 dropped, 1 failed`"""
    numbers = ((counts.dropped, "dropped"), (counts.failed, "failed"))
    return ", ".join(f"{number} {what}" for number, what in numbers if number)


def _dot_text(text: str) -> str:
    return '"' + escape(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _mermaid_text(text: str) -> str:
    """Escapes a text: Mermaid accepts HTML entities, written with # instead of &."""
    safe = "".join(c if c.isalnum() or c in " -_./:,()" else f"#{ord(c)};" for c in escape(text))
    return f'"{safe}"'
