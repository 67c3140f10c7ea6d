"""The map of flows as JSON, for the page that draws it (page.html): what changed since it was last asked, and the
processes at both ends of an edge.
"""

import threading
from base64 import b64decode
from collections import OrderedDict, defaultdict, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from kubectl_gadget.flows.flow import FORWARDED, FlowEvent, Party
from kubectl_gadget.flows.map import Edge, FlowGraph, MapNode, outcome, place
from kubectl_gadget.flows.records import record
from kubectl_gadget.observe.decoders import process_events
from kubectl_gadget.observe.happening import ProcessEvent
from kubectl_gadget.observe.processes import Process, ProcessTable
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.containers import Container
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.wire.policy_events import ExecId

_LAST_EVENTS = 1000
"""how many events a page gets when it is opened"""
_EVENTS_A_TICK = 500
"""More than anyone reads; the map counts all of them."""
_MOST_PROCESSES = 50
_MOST_PORTS = 20


class LivePage:
    """The content of the page. `add_all` may be called from any thread."""

    def __init__(self, most_edges: int = 10_000) -> None:
        self._lock = threading.Lock()
        self.graph = FlowGraph(most_edges)
        self._last: deque[dict[str, object]] = deque(maxlen=_LAST_EVENTS)
        self._new: list[dict[str, object]] = []
        self._changed: set[tuple[MapNode, MapNode]] = set()
        self._vanished: list[tuple[MapNode, MapNode]] = []
        self._processes = defaultdict[MapNode, OrderedDict[tuple[str, str], int]](OrderedDict)
        self.processes = Processes()
        """once the page is served, only `add_rows` changes it"""
        self._trees = defaultdict[MapNode, ProcessTree](lambda: ProcessTree(self.processes))
        self._passed_over = 0
        self._count = 0

    @property
    def places(self) -> int:
        """The number of places that it keeps processes of."""
        return len(self._processes.keys() | self._trees.keys())

    def add_rows(self, rows: Rows) -> None:
        """Takes rows of gadgets; rows of trace process show which process started which."""
        with self._lock:
            self.processes.take(rows)

    def add_all(self, events: Sequence[FlowEvent]) -> None:
        """Takes events. The map counts all of them; only events that are shown become rows."""
        with self._lock:
            for event in events:
                edge, vanished = self.graph.add(event)
                self._note_change(edge, vanished)
                flow = event.flow
                ends = (flow.client, flow.backend or flow.server)
                # Places that are not on the map have no box, and there may be any number of them.
                for party, other in (ends, ends[::-1]) if edge in self.graph.edges else ():
                    self._note_process(party)
                    if party.who.exec_id:
                        self._trees[place(party)].add(event, party, other)
                self._count += 1
                if len(self._new) < _EVENTS_A_TICK:
                    self._show(event)
                else:
                    self._passed_over += 1

    def _settle(self, is_over: bool) -> None:
        for edge, vanished in self.graph.settle(is_over):
            self._note_change(edge, vanished)

    def _note_change(self, edge: tuple[MapNode, MapNode], vanished: tuple[MapNode, MapNode] | None) -> None:
        if edge in self.graph.edges:
            self._changed.add(edge)
        if vanished is not None:
            self._vanished.append(vanished)

    def _show(self, event: FlowEvent) -> None:
        flow = event.flow
        row = record(event) | {"id": self._count, "outcome": outcome(event)}
        row["from"], row["to"] = (_identity(place(party)) for party in (flow.client, flow.backend or flow.server))
        self._last.append(row)
        self._new.append(row)

    def updates(self) -> dict[str, Any] | None:
        """Return a message with the changes since the last call, as JSON; None when there are none."""
        with self._lock:
            self._settle(is_over=False)
            if not self._new and not self._changed:
                return None
            message = self._message([ends for ends in self._changed if ends in self.graph.edges], self._new)
            message["vanished"] = [
                " ".join(map(_identity, ends)) for ends in self._vanished if ends not in self.graph.edges
            ]
            self._new, self._changed, self._vanished, self._passed_over = [], set(), [], 0
        return message

    def all(self, is_over: bool = False) -> dict[str, Any]:
        """Return a message with everything, as JSON, for a page that was just opened. `is_over`: nothing more will
        come."""
        with self._lock:
            self._settle(is_over)
            return {"whole": True} | self._message(self.graph.edges.keys(), list(self._last))

    def _message(self, edges: Collection[tuple[MapNode, MapNode]], events: list[dict[str, object]]) -> dict[str, Any]:
        places = dict.fromkeys(end for ends in edges for end in ends)
        return {
            "places": {_identity(found): found._asdict() for found in places},
            "edges": [_edge(ends, self.graph.edges[ends]) for ends in edges],
            "processes": {
                _identity(found): [{"pod": pod, "comm": comm, "flows": count} for (pod, comm), count in known.items()]
                for found, known in self._processes.items()
                if found in places
            },
            "trees": {_identity(found): tree.nodes() for found, tree in self._trees.items() if found in places},
            "events": events,
            "passed_over": self._passed_over,
            "left_out": self.graph.left_out,
        }

    def _note_process(self, party: Party) -> None:
        comm = party.who.comm
        if not comm:
            return
        known, key = self._processes[place(party)], (party.name, comm)
        known[key] = known.get(key, 0) + 1
        known.move_to_end(key)
        if len(known) > _MOST_PROCESSES:
            known.popitem(last=False)


def _identity(found: MapNode) -> str:
    return f"{found.kind}/{found.group}/{found.name}"


def _edge(ends: tuple[MapNode, MapNode], edge: Edge) -> dict[str, object]:
    client, server = map(_identity, ends)
    return {
        "from": client,
        "to": server,
        "flows": edge.flows,
        "requests": edge.requests,
        "dropped": edge.dropped,
        "failed": edge.failed,
        "sent": edge.sent,
        "received": edge.received,
        "ports": [
            {"name": name, "flows": counts.flows, "dropped": counts.dropped, "failed": counts.failed}
            for name, counts in edge.sorted_ports()[:_MOST_PORTS]
        ],
        "more_ports": max(0, len(edge.ports) - _MOST_PORTS),
        "processes": sorted(edge.processes)[:20],
    }


# The processes that flows belong to, and their ancestors, from rows of trace process. The row of a process that was
# there before the run may come after its first flows, so the process is looked up whenever it is shown.


GADGET = "trace_process"

_Row = tuple[str, ProcessEvent, Container, int]


class Processes:
    """The processes of all nodes. `take` rows, `find` processes by the ID in flows."""

    def __init__(self) -> None:
        self._tables: dict[str, ProcessTable] = {}

    def take(self, rows: Rows) -> None:
        """Takes rows of trace process; others are skipped."""
        for row in rows.collect(_read):
            if row is not None:
                self.apply(*row)

    def apply(self, node: str, event: ProcessEvent, container: Container, time: int) -> None:
        """Takes one row."""
        if node not in self._tables:
            self._tables[node] = ProcessTable(node)
        self._tables[node].apply(event, container, time)

    def find(self, exec_id: str) -> Process | None:
        """The process; None: unknown."""
        node, started, pid = b64decode(exec_id).decode().rsplit(":", 2)
        table = self._tables.get(node)
        return table.find(ExecId(int(started), int(pid))) if table else None


def within_container(process: Process) -> list[Process]:
    """The process and its ancestors in the same container, the outermost first."""
    found = takewhile(lambda other: other.container == process.container, process.ancestors())
    return [process, *found][::-1]


def _read(batch: Batch) -> Sequence[_Row | None]:
    if batch.gadget.name != GADGET:
        return [None] * len(batch)
    columns = batch.nodes(), process_events(batch), batch.row_containers(), batch.wall_ns().tolist()
    return list(zip(*columns, strict=True))


# The processes of one place on the map with their connections, as a tree. Each update of the page has the whole tree,
# and short-lived processes come without end, so the oldest are forgotten.


_MOST_IN_TREE = 50
_MOST_CONNECTIONS = 20
_MOST_TEXT = 300


@dataclass
class _Edge:
    """The connections with one other end, at one port."""

    flows: int = 0
    last: str = ""
    """the most recent summary"""
    bad: bool = False


@dataclass
class _TreeProcess:
    comm: str
    pid: int
    pod: str
    connections: OrderedDict[str, _Edge] = field(default_factory=OrderedDict)


class ProcessTree:
    """Takes events of flows with `add`; `party` is the end at this place."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._nodes: OrderedDict[str, _TreeProcess] = OrderedDict()
        """processes that have connections, by exec ID"""

    def add(self, event: FlowEvent, party: Party, other: Party) -> None:
        exec_id = party.who.exec_id
        node = self._nodes.setdefault(exec_id, _TreeProcess(party.who.comm, party.who.pid or 0, party.name))
        self._nodes.move_to_end(exec_id)
        if len(self._nodes) > _MOST_IN_TREE:
            self._nodes.popitem(last=False)
        flow = event.flow
        port = f":{flow.server.port}" if flow.server.port else ""
        asks = party is flow.client
        text = f"→ {other.name}{port} {flow.protocol}" if asks else f"← {other.name} at {port or flow.protocol}"
        connection = node.connections.setdefault(text, _Edge())
        node.connections.move_to_end(text)
        if len(node.connections) > _MOST_CONNECTIONS:
            node.connections.popitem(last=False)
        connection.flows += event.kind == "new" or not connection.flows
        connection.last, connection.bad = event.summary, event.verdict != FORWARDED

    def nodes(self) -> list[dict[str, object]]:
        """The tree as JSON: each process has its parent's ID, if that is in the list as well."""
        found: dict[str, dict[str, object]] = {}
        for exec_id, node in self._nodes.items():
            process = self._processes.find(exec_id)
            line = within_container(process) if process else []
            for depth, ancestor in enumerate(line):
                parent = line[depth - 1].id.text(ancestor.node) if depth else None
                known = found.setdefault(ancestor.id.text(ancestor.node), {"connections": []})
                known |= {
                    "parent": parent,
                    "pid": ancestor.id.pid,
                    "command": _short(ancestor.command),
                    "pod": node.pod,
                }
                known["ended"] = ancestor.has_ended
            shown = found.setdefault(
                exec_id, {"parent": None, "pid": node.pid, "command": node.comm, "pod": node.pod, "ended": False}
            )
            shown["connections"] = [vars(item) | {"text": text} for text, item in node.connections.items()]
        return [{"id": exec_id} | node for exec_id, node in found.items()]


def _short(text: str) -> str:
    return text if len(text) <= _MOST_TEXT else f"{text[: _MOST_TEXT - 1]}…"
