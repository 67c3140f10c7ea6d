"""`kubectl gadget flows --web`: the map as a live page, served on this machine's loopback interface.

Opening it requires the random token in its URL. The page and its data come from one websocket server and nothing comes
from elsewhere. Any page in the user's browser can connect to loopback, so besides the token, the Host and
Origin headers have to be ours; and names from containers are text in the page, never markup.
"""

import asyncio
import hmac
import http
import json
import secrets
import threading
from base64 import b64decode
from collections import OrderedDict, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import takewhile
from typing import Protocol

from websockets.asyncio.server import Server, ServerConnection, broadcast, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from kubectl_gadget.errors import GadgetError
from kubectl_gadget.flows.flow import FORWARDED, FlowEvent, Party
from kubectl_gadget.flows.map import Edge, FlowGraph, MapNode, outcome, place
from kubectl_gadget.flows.records import record
from kubectl_gadget.observe.decoders import process_events
from kubectl_gadget.observe.happening import ProcessEvent
from kubectl_gadget.observe.processes import Process, ProcessTable
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.containers import Container
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.run.coverage import Coverage
from kubectl_gadget.run.services import Surroundings
from kubectl_gadget.wire.policy_events import ExecId

_TICK_SECONDS = 0.25
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
        self._run: Surroundings | None = None
        self._said = ""

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

    def updates(self) -> str | None:
        """A message with the changes since the last call; None when there are none."""
        with self._lock:
            for edge, vanished in self.graph.settle(is_over=False):
                self._note_change(edge, vanished)
            starting = self._starting()
            if not self._new and not self._changed and starting == self._said:
                return None
            self._said = starting
            message = self._message([ends for ends in self._changed if ends in self.graph.edges], self._new)
            message["vanished"] = [
                " ".join(map(_identity, ends)) for ends in self._vanished if ends not in self.graph.edges
            ]
            self._new, self._changed, self._vanished, self._passed_over = [], set(), [], 0
        return json.dumps(message)

    def document(self, nonce: str) -> tuple[str, str]:
        """See Content."""
        own = f"'nonce-{nonce}'"
        policy = f"default-src 'none'; script-src {own}; style-src {own}; connect-src 'self'; base-uri 'none'"
        return files("kubectl_gadget.flows").joinpath("page.html").read_text().replace("NONCE", nonce), policy

    def saved(self, path: str) -> tuple[bytes, str] | None:
        """See Content."""
        return None

    def begin(self, run: Surroundings) -> None:
        """See Content."""
        self._run = run

    def all(self, is_over: bool = False) -> str:
        """A message with everything, for a page that was just opened. `is_over`: nothing more will come."""
        with self._lock:
            self.graph.settle(is_over)
            return json.dumps({"whole": True} | self._message(self.graph.edges.keys(), list(self._last)))

    def _message(
        self, edges: Collection[tuple[MapNode, MapNode]], events: list[dict[str, object]]
    ) -> dict[str, object]:
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
            "starting": self._starting(),
            "passed_over": self._passed_over,
            "left_out": self.graph.left_out,
        }

    def _starting(self) -> str:
        """Return what the run waits for; empty: everything is attached, or has failed."""
        covered = self._run.covered() if self._run else None
        return "" if self._run is None or covered is None else starting(covered, self._run.phases())

    def _note_process(self, party: Party) -> None:
        comm = party.who.comm
        if not comm:
            return
        known, key = self._processes[place(party)], (party.name, comm)
        known[key] = known.get(key, 0) + 1
        known.move_to_end(key)
        if len(known) > _MOST_PROCESSES:
            known.popitem(last=False)


def starting(covered: Coverage, phases: Mapping[str, str]) -> str:
    """Return how far the start of a run is, in words; empty: it has begun."""
    if covered.complete_ns:
        return ""
    known = len(covered.traced) + len(phases)
    doing = ", ".join(sorted(set(phases.values())))
    return f"starting agents {len(covered.traced)}/{known}{f': {doing}' if doing else ''}" if known else "finding nodes"


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


class Content(Protocol):
    """The content of a server. All methods may be called from any thread."""

    def document(self, nonce: str) -> tuple[str, str]:
        """Return the page, and the policy (CSP) that it needs."""

    def all(self) -> str:
        """Return a message with everything, for a page that was just opened."""

    def updates(self) -> str | None:
        """Return a message with the changes since the last call; None when there are none."""

    def saved(self, path: str) -> tuple[bytes, str] | None:
        """Return a file that the page offers at a path, and its name; None: there is none."""

    def begin(self, run: Surroundings) -> None:
        """Called when the page is served: `run` tells how far the run is."""


class PageServer:
    """A service of a run (`serve`): the page on a port of this machine. `say` is called with its URL."""

    def __init__(self, page: Content, port: int, say: Callable[[str], object]) -> None:
        """`port` 0: any free port."""
        self._page = page
        self._port = port
        self._say = say

    @asynccontextmanager
    async def serve(self, run: Surroundings) -> AsyncIterator[None]:
        """Raises GadgetError when the port is taken."""
        token = secrets.token_urlsafe(24)
        try:
            server = await serve(
                lambda connection: _follow(connection, self._page),
                "127.0.0.1",
                self._port,
                process_request=lambda _, request: _answer(self._page, request, token),
                max_size=1 << 16,
                ping_interval=None,
            )
        except OSError as error:
            raise GadgetError(
                f"the page cannot be served on port {self._port}: {error.strerror}", "another --web-port"
            ) from None
        async with server:
            port = next(iter(server.sockets)).getsockname()[1]
            self._page.begin(run)
            self._say(f"open http://127.0.0.1:{port}/?token={token}")
            run.tasks.start(_broadcast(server, self._page), "updates of the web page")
            yield


async def _broadcast(server: Server, page: Content) -> None:
    while True:
        await asyncio.sleep(_TICK_SECONDS)
        # In a thread, since this takes a while for a large map.
        if changes := await asyncio.to_thread(page.updates):
            broadcast(server.connections, changes)


async def _follow(connection: ServerConnection, page: Content) -> None:
    """Sends everything; updates follow by broadcast until the page is closed."""
    await connection.send(await asyncio.to_thread(page.all))
    await connection.wait_closed()


async def _answer(page: Content, request: Request, token: str) -> Response | None:
    """The page, a file, an error response, or None to go on with the websocket."""
    path, _, query = request.path.partition("?")
    host = request.headers.get("Host", "")
    name, _, port = host.rpartition(":")
    if name not in ("127.0.0.1", "localhost"):
        return _refuse("this page is for this machine only")
    if not hmac.compare_digest(query.encode(), f"token={token}".encode()):
        return _refuse("the token is missing or wrong: open the whole URL that kubectl gadget printed")
    if path == "/live":
        origin = request.headers.get("Origin")
        is_own = origin in (f"http://127.0.0.1:{port}", f"http://localhost:{port}")
        return None if is_own else _refuse("the request comes from another page")
    if path != "/":
        found = await asyncio.to_thread(page.saved, path)
        if found is None:
            return _respond(http.HTTPStatus.NOT_FOUND, "text/plain", b"there is only one page\n")
        answer = _respond(http.HTTPStatus.OK, "application/octet-stream", found[0])
        answer.headers["Content-Disposition"] = f'attachment; filename="{found[1]}"'
        return answer
    text, policy = await asyncio.to_thread(page.document, secrets.token_urlsafe(16))
    return _respond(http.HTTPStatus.OK, "text/html; charset=utf-8", text.encode(), policy)


def _refuse(why: str) -> Response:
    return _respond(http.HTTPStatus.FORBIDDEN, "text/plain; charset=utf-8", f"{why}\n".encode())


def _respond(status: http.HTTPStatus, kind: str, body: bytes, policy: str = "default-src 'none'") -> Response:
    headers = Headers(
        {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": policy,
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
            "Connection": "close",
        }
    )
    return Response(status.value, status.phrase, headers, body)


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
