"""The processes of one place on the map with their connections, as a tree for the page.

The trap: each update of the page has the whole tree, and short-lived processes come without end. So the oldest are
forgotten.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from kubectl_gadget.flows.flow import FORWARDED, FlowEvent, Party
from kubectl_gadget.flows.service_map.flow_processes import Processes, within_container

_MOST_PROCESSES = 50
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
        if len(self._nodes) > _MOST_PROCESSES:
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

    def nodes(self) -> list[dict[str, Any]]:
        """The tree as JSON: each process has its parent's ID, if that is in the list as well."""
        found: dict[str, dict[str, Any]] = {}
        for exec_id, node in self._nodes.items():
            process = self._processes.find(exec_id)
            line = within_container(process) if process else []
            for place, ancestor in enumerate(line):
                parent = line[place - 1].id.text(ancestor.node) if place else None
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
