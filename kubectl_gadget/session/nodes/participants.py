"""Which nodes take part in a run, and how their agents are reached: this machine, or a cluster's as they come and go.

The trap: nothing may be created before everything that the user typed has been checked.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.cluster.options import Selection
from kubectl_gadget.session.nodes.local import LocalStream, open_local
from kubectl_gadget.session.nodes.stream import Open
from kubectl_gadget.session.options import RunOptions
from kubectl_gadget.session.progress import Progress
from kubectl_gadget.wire.client_messages import FilterSpec

if TYPE_CHECKING:
    from kubectl_gadget.cluster.api.requests import Api


@dataclass(frozen=True)
class NodeChange:
    """What changed, by node: whom to trace from now on and how to reach it, whom to leave, and the agents' filters."""

    add: dict[str, Open] = field(default_factory=dict)
    remove: tuple[str, ...] = ()
    filters: dict[str, FilterSpec] = field(default_factory=dict)
    """of all nodes in `add`, and of others whose filter is a new one"""


class Nodes(Protocol):
    """The nodes of a run."""

    reconnect: bool
    """whether a broken stream is opened again"""

    @property
    def api(self) -> "Api | None":
        """The cluster's; None for this machine alone."""

    async def begin(self) -> None:
        """Starts what takes time and may be in vain. Nothing is traced and nothing made in a cluster before `watch`."""

    def wants(self, pod_uid: str, pod_name: str) -> bool | None:
        """Whether rows of this pod are wanted, where no agent can tell; None: not known yet. From any thread."""

    def where(self, attached: int, known: int) -> str:
        """Where the run is, for a sentence, when so many of the nodes that are known take part."""

    def watch(self, tasks: Tasks) -> AsyncIterator[NodeChange]:
        """First what is there, then changes, until cancelled; may end when nothing will change. Raises GadgetError.
        `tasks` are the run's."""

    async def close(self) -> None:
        """Removes all that was created for this run."""


def local_filter(selection: Selection) -> FilterSpec:
    """FILTER for one machine: without -n every container, also those that no Kubernetes made."""
    return FilterSpec(
        namespaces=(selection.namespace,) if selection.namespace and not selection.all_namespaces else None,
        pods=tuple(selection.pods) or None,
        containers=tuple(selection.containers) or None,
        host=selection.host,
        own_processes=selection.own_processes,
    )


def local_node() -> str:
    """The name that this machine's agent gives itself."""
    return os.environ.get("NODE_NAME") or socket.gethostname()


class LocalNodes:
    """This machine, as the only node."""

    reconnect = False
    api = None

    def __init__(self, selection: Selection, chosen: bool, beforehand: Callable[[], object] | None = None) -> None:
        """`chosen`: whether the user said so, or there is just no cluster. `beforehand` as in RunOptions."""
        self._beforehand = beforehand
        self._selection = selection
        self._chosen = chosen
        self._stream: LocalStream | None = None

    async def begin(self) -> None:
        """Starts the agent, which waits for its orders."""
        self._stream = await open_local()

    def wants(self, pod_uid: str, pod_name: str) -> bool | None:
        """The agent's filter says it all."""
        return True

    def where(self, attached: int, known: int) -> str:
        """Says why, too, to who may have expected a cluster."""
        return "this machine" if self._chosen else "this machine (no kubeconfig was found)"

    async def watch(self, tasks: Tasks) -> AsyncIterator[NodeChange]:
        """One change: this machine, under the name that its agent gives itself."""
        if self._beforehand is not None:
            await asyncio.to_thread(self._beforehand)
        name = local_node()
        yield NodeChange(add={name: self._open}, filters={name: local_filter(self._selection)})

    async def close(self) -> None:
        """Ends the agent if it was not used."""
        if self._stream is not None:
            await self._stream.close()

    async def _open(self) -> LocalStream:
        """The agent that was started; a new one after that."""
        stream, self._stream = self._stream, None
        return stream or await open_local()


def choose_nodes(options: RunOptions, progress: Progress) -> Nodes:
    """This machine or the cluster. Raises GadgetError."""
    if options.local:
        return LocalNodes(options.selection, not options.local_by_default, options.beforehand)
    from kubectl_gadget.session.nodes.cluster import ClusterNodes

    return ClusterNodes(options, progress)
