"""The nodes of a cluster: those that host selected pods, and an agent on each.

`close` must run even when `watch` failed half way, since pods may have been started by then.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from functools import partial

from kubectl_gadget.agents.per_node import Agents
from kubectl_gadget.background_tasks import Tasks, cancel
from kubectl_gadget.kube import kubeconfig
from kubectl_gadget.kube.exec import ExecStream
from kubectl_gadget.kube.informer import Informer
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.run.node import NodeStream
from kubectl_gadget.run.participants import NodeChange
from kubectl_gadget.run.progress import Progress
from kubectl_gadget.run.request import declared
from kubectl_gadget.run.run_options import RunOptions
from kubectl_gadget.run.selection import TargetChange, Targets

_LONG_SECONDS = 5.0


class ClusterNodes:
    """Follows the nodes that the selection needs. Agents are started on demand where no resident one runs."""

    reconnect = True
    is_asked = False

    def __init__(self, options: RunOptions, progress: Progress) -> None:
        self._options = options
        self._progress = progress
        self._cluster = kubeconfig.load(options.kube)
        self._targets: Targets | None = None
        self._agents: Agents | None = None
        self._informer: Informer | None = None
        self._changes: AsyncGenerator[TargetChange] | None = None
        self._first: asyncio.Task[TargetChange] | None = None
        self._early: dict[str, asyncio.Task[ExecStream | None]] = {}
        """sessions that were started before the run asked for them, by node"""
        self.api = Api(self._cluster, progress.say)
        self._starting_since: float | None = None

    async def begin(self, tasks: Tasks) -> None:
        """Begins to find the nodes, and to start sessions of resident agents, which wait for their requests."""
        api, say, selection = self.api, self._progress.say, self._options.selection
        namespace = None if selection.all_namespaces else selection.namespace or self._cluster.namespace
        session = declared(self._options, namespace)
        self._agents = agents = Agents(api, self._options.agent, tasks, self._report_start, note=say, session=session)
        tasks.start(agents.look_ahead(), "resident agents")
        self._informer = Informer(api, tasks, say, namespace)
        for follower in self._options.followers:
            self._informer.follow(follower)
        self._targets = Targets(
            api, self._informer, tasks, selection, say, require=agents.require, found=self._open_early
        )
        self._changes = self._targets.watch()
        self._first = asyncio.create_task(_first(self._changes), name="first nodes")

    def _open_early(self, nodes: Iterable[str]) -> None:
        assert self._agents is not None
        for node in nodes:
            session = self._agents.open_resident(node)
            self._early[node] = asyncio.create_task(session, name=f"early session of {node}")

    def wants(self, pod_uid: str, pod_name: str) -> bool | None:
        """True if the label selector selects this pod."""
        return None if self._targets is None else self._targets.wants(pod_uid, pod_name)

    def where(self, attached: int, known: int) -> str:
        """Returns a phrase like "2/3 nodes"."""
        return f"{attached}/{known} nodes"

    def absent(self) -> tuple[str, ...]:
        """Return which selected pods have not existed so far."""
        return () if self._targets is None else self._targets.absent()

    def skipped(self) -> Mapping[str, str]:
        """Return why nodes are skipped, such as those that are not ready."""
        return {} if self._targets is None else self._targets.skipped

    async def watch(self, tasks: Tasks) -> AsyncIterator[NodeChange]:
        """Yields the present nodes first, then changes. Never ends by itself. Raises GadgetError."""
        if self._first is None:
            await self.begin(tasks)
        assert self._first is not None
        assert self._changes is not None
        yield await self._known(await self._first)
        async for change in self._changes:
            yield await self._known(change)

    async def _known(self, change: TargetChange) -> NodeChange:
        """Returns the change as soon as all followers know the cluster."""
        assert self._informer is not None
        await self._informer.known()
        return NodeChange(
            add={node: partial(self._open, node) for node in change.add},
            remove=change.remove,
            filters=change.add | change.update,
        )

    async def _open(self, node: str) -> NodeStream:
        assert self._agents is not None
        # Shielded, and kept until it is taken: if this task is cancelled, `close` finds it.
        stream = await asyncio.shield(early) if (early := self._early.get(node)) is not None else None
        self._early.pop(node, None)
        return await self._agents.open(node) if stream is None else stream

    def _report_start(self, node: str, message: str) -> None:
        """Reports the start of an agent: one line for all nodes, and more only when it takes long."""
        now = time.monotonic()
        if self._starting_since is None:
            self._starting_since = now
            self._progress.say("starting agents")
        if now - self._starting_since > _LONG_SECONDS:
            self._progress.node(node, message)
        else:
            self._progress.detail(node, message)

    async def close(self) -> None:
        """Removes the agents that were started for this run, and reports what could not be removed."""
        if self._first is not None and self._changes is not None:
            await cancel(self._first, *self._early.values())
            await self._changes.aclose()
        for session in self._early.values():
            if not session.cancelled() and session.exception() is None and (stream := session.result()) is not None:
                await stream.close()
        if self._agents is not None:
            for remaining in await self._agents.close():
                self._progress.warn(f"could not be removed: {remaining}")
        self.api.close()


async def _first(changes: AsyncGenerator[TargetChange]) -> TargetChange:
    return await anext(changes)
