"""The nodes that take part in a run, and the ways to their agents: this machine, or the changing nodes of a cluster.

Nothing may be created before all of the user's input has been checked.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.kube.cluster_options import Selection
from kubectl_gadget.run.local_node import LocalStream, open_local
from kubectl_gadget.run.node import Open
from kubectl_gadget.run.request import local_filter
from kubectl_gadget.wire.client_messages import FilterSpec

if TYPE_CHECKING:
    from kubectl_gadget.kube.requests import Api


@dataclass(frozen=True)
class NodeChange:
    """A change in the nodes: new nodes to trace, nodes to leave, and the agents' filters."""

    add: dict[str, Open] = field(default_factory=dict)
    remove: tuple[str, ...] = ()
    filters: dict[str, FilterSpec] = field(default_factory=dict)
    """of all nodes in `add`, and of other nodes whose filter has changed"""


class Nodes(Protocol):
    """The nodes of a run."""

    reconnect: bool
    """True if a broken stream is reopened"""
    is_asked: bool
    """True if streams were already sent the request"""

    @property
    def api(self) -> "Api | None":
        """The cluster's API; None for this machine alone."""

    async def begin(self, tasks: Tasks) -> None:
        """Starts slow work in advance. Before `watch`, nothing is traced, and nothing is created in a cluster except
        sessions of agents that already run. `tasks` are the run's."""

    def wants(self, pod_uid: str, pod_name: str) -> bool | None:
        """True if rows of this pod are wanted, where no agent can decide; None: not known yet. From any thread."""

    def where(self, attached: int, known: int) -> str:
        """Returns a phrase that says where the run takes place; `attached` of the `known` nodes take part."""

    def absent(self) -> tuple[str, ...]:
        """Return what was selected and has not existed so far, as clauses."""

    def skipped(self) -> Mapping[str, str]:
        """Return why nodes that were selected were not tried, by node."""

    def watch(self, tasks: Tasks) -> AsyncIterator[NodeChange]:
        """Yields the present nodes first, then changes, until cancelled; may end when no change is possible. Raises
        GadgetError. `tasks` are the run's."""

    async def close(self) -> None:
        """Removes everything that was created for this run."""


def local_node() -> str:
    """Returns the name that this machine's agent reports for itself."""
    return os.environ.get("NODE_NAME") or socket.gethostname()


class LocalNodes:
    """This machine as the only node."""

    reconnect = False
    is_asked = False
    api = None

    def __init__(
        self,
        selection: Selection,
        chosen: bool,
        beforehand: Callable[[], object] | None = None,
    ) -> None:
        """`chosen`: whether the user asked for it; otherwise there is no cluster. `beforehand` as in RunOptions."""
        self._beforehand = beforehand
        self._selection = selection
        self._chosen = chosen
        self._stream: LocalStream | None = None

    async def begin(self, tasks: Tasks) -> None:
        """Takes the agent that was started early, and perhaps asked (request.py), or starts one."""
        self._stream = await open_local()
        self.is_asked = self._stream.is_asked

    def wants(self, pod_uid: str, pod_name: str) -> bool | None:
        """Returns True: the agent's filter already decides."""
        return True

    def where(self, attached: int, known: int) -> str:
        """Also gives the reason to users who may have expected a cluster."""
        return "this machine" if self._chosen else "this machine (no kubeconfig was found)"

    def absent(self) -> tuple[str, ...]:
        """Return (): only the agent knows this machine's containers."""
        return ()

    def skipped(self) -> Mapping[str, str]:
        """Return nothing: this machine is always tried."""
        return {}

    async def watch(self, tasks: Tasks) -> AsyncIterator[NodeChange]:
        """Yields one change: this machine, under the name that its agent reports."""
        if self._beforehand is not None:
            await asyncio.to_thread(self._beforehand)
        name = local_node()
        yield NodeChange(add={name: self._open}, filters={name: local_filter(self._selection)})

    async def close(self) -> None:
        """Ends the agent if it was not used."""
        if self._stream is not None:
            await self._stream.close()

    async def _open(self) -> LocalStream:
        """Returns the agent that was started. Called once: a broken stream is not reopened."""
        stream, self._stream = self._stream, None
        assert stream is not None
        return stream
