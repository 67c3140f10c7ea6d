"""The nodes of a cluster: those that host selected pods, and an agent on each.

The trap: `close` must run even when `watch` failed half way, since pods may have been started by then.
"""

import time
from collections.abc import AsyncIterator
from contextlib import aclosing

from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.cluster.agents.per_node import Agents
from kubectl_gadget.cluster.api import kubeconfig
from kubectl_gadget.cluster.api.requests import Api
from kubectl_gadget.cluster.informer import Informer
from kubectl_gadget.cluster.selection.targets import Targets
from kubectl_gadget.session.nodes.agent_stream import NodeStream, Open
from kubectl_gadget.session.nodes.declaration import declared
from kubectl_gadget.session.nodes.participants import NodeChange
from kubectl_gadget.session.progress import Progress
from kubectl_gadget.session.run_options import RunOptions
from kubectl_gadget.wire.client_messages import FilterSpec

_LONG_SECONDS = 5.0


class ClusterNodes:
    """Follows the nodes that the selection needs. Agents are started on demand where no resident one runs."""

    reconnect = True

    def __init__(self, options: RunOptions, progress: Progress) -> None:
        self._options = options
        self._progress = progress
        self._cluster = kubeconfig.load(options.kube)
        self._targets: Targets | None = None
        self._agents: Agents | None = None
        self.api = Api(self._cluster, progress.say)
        self._starting_since: float | None = None

    async def begin(self) -> None:
        """Does nothing yet: the user's input is checked first."""

    def wants(self, pod_uid: str, pod_name: str) -> bool | None:
        """Whether the label selector selects this pod."""
        return None if self._targets is None else self._targets.wants(pod_uid, pod_name)

    def where(self, attached: int, known: int) -> str:
        """Returns a phrase like "2/3 nodes"."""
        return f"{attached}/{known} nodes"

    async def watch(self, tasks: Tasks) -> AsyncIterator[NodeChange]:
        """Yields the present nodes first, then changes. Never ends by itself. Raises GadgetError."""
        api, say, selection = self.api, self._progress.say, self._options.selection
        namespace = None if selection.all_namespaces else selection.namespace or self._cluster.namespace
        session = declared(self._options, namespace)
        self._agents = agents = Agents(api, self._options.agent, tasks, self._report_start, note=say, session=session)
        tasks.start(agents.look_ahead(), "resident agents")
        informer = Informer(api, tasks, say, namespace)
        for follower in self._options.followers:
            informer.follow(follower)
        self._targets = Targets(api, informer, tasks, selection, say, require=agents.require)

        def opener(node: str) -> Open:
            async def open_stream() -> NodeStream:
                return await agents.open(node)

            return open_stream

        async with aclosing(self._targets.watch()) as changes:
            async for change in changes:
                await informer.known()
                yield NodeChange(
                    add={node: opener(node) for node in change.add},
                    remove=change.remove,
                    filters={node: FilterSpec.from_json(each) for node, each in (change.add | change.update).items()},
                )

    def _report_start(self, node: str, message: str) -> None:
        """Reports the start of an agent: one line for all nodes, and more only when it takes long."""
        now = time.monotonic()
        if self._starting_since is None:
            self._starting_since = now
            self._progress.say("starting agents on nodes that have none")
        if now - self._starting_since > _LONG_SECONDS:
            self._progress.node(node, message)
        else:
            self._progress.detail(node, message)

    async def close(self) -> None:
        """Removes the agents that were started for this run, and reports what could not be removed."""
        if self._agents is not None:
            for remaining in await self._agents.close():
                self._progress.warn(f"may remain: {remaining}")
        self.api.close()
