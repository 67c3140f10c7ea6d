"""Which nodes take part in a run, and how their agents are reached: this machine, or a cluster's as they come and go.

The trap: nothing may be created before everything that the user typed has been checked.
"""

import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from kubectl_gadget.cluster.options import Selection
from kubectl_gadget.session.local import open_local
from kubectl_gadget.session.stream import Open


@dataclass(frozen=True)
class NodeChange:
    """What changed: nodes to trace from now on, nodes to leave, and the agents' filter (docs/protocol.md)."""

    filter: dict[str, Any]
    add: dict[str, Open] = field(default_factory=dict)
    remove: tuple[str, ...] = ()


class Nodes(Protocol):
    """The nodes of a run."""

    reconnect: bool
    """whether a broken stream is opened again"""

    def watch(self) -> AsyncIterator[NodeChange]:
        """First what is there, then changes, until cancelled; may end when nothing will change. Raises GadgetError."""

    async def close(self) -> None:
        """Removes all that was created for this run."""


def local_filter(selection: Selection) -> dict[str, Any]:
    """FILTER for one machine: without -n every container, also those that no Kubernetes made."""
    return {
        "namespaces": [selection.namespace] if selection.namespace and not selection.all_namespaces else None,
        "pods": list(selection.pods) or None,
        "containers": list(selection.containers) or None,
        "exclude_pods": [],
        "host": selection.host,
    }


class LocalNodes:
    """This machine, as the only node."""

    reconnect = False

    def __init__(self, selection: Selection) -> None:
        self._selection = selection

    async def watch(self) -> AsyncIterator[NodeChange]:
        """One change: this machine, under the name that its agent gives itself."""
        yield NodeChange(filter=local_filter(self._selection), add={os.environ.get("NODE_NAME") or socket.gethostname(): open_local})

    async def close(self) -> None:
        """Nothing was created."""
