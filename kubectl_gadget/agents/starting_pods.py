"""The states of one run's pods while they start: one watch for all of them, however many nodes there are.

The trap: the watch may show a pod before the answer to its creation arrives, so states are kept until they are asked
for.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import aclosing

from kubectl_gadget.agents import manifests
from kubectl_gadget.background_tasks import Tasks
from kubectl_gadget.errors import ClusterError
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.kube.resources import PODS, Object
from kubectl_gadget.kube.watch import Synced, WatchScope, follow


class StartingPods:
    """Follows the pods of `run` until `end` is called."""

    def __init__(self, api: Api, tasks: Tasks, namespace: str, run: str) -> None:
        self._queues: defaultdict[str, asyncio.Queue[Object | ClusterError | None]] = defaultdict(asyncio.Queue)
        self._present: set[str] = set()
        self._started: set[str] = set()
        self._failure: ClusterError | None = None
        scope = WatchScope(PODS, namespace, labels=f"{manifests.RUN_LABEL}={run}")
        self._task = tasks.start(self._follow(api, scope), "starting agents")

    def end(self) -> None:
        """Ends the watch. Nobody may wait for a pod any more."""
        self._task.cancel()

    async def states(self, name: str) -> AsyncGenerator[Object | None, None]:
        """Yields the states of one pod; None when it was deleted. Never ends by itself. Raises ClusterError."""
        try:
            while self._failure is None:
                state = await self._queues[name].get()
                if isinstance(state, ClusterError):
                    break
                yield state
        finally:
            self._started.add(name)
            self._queues.pop(name, None)
        assert self._failure is not None
        raise self._failure

    async def _follow(self, api: Api, scope: WatchScope) -> None:
        try:
            async with aclosing(follow(api, scope)) as changes:
                async for change in changes:
                    if isinstance(change, Synced):
                        pods = {pod["metadata"]["name"]: pod for pod in change.items}
                        # A pod that is not listed yet may have been created meanwhile.
                        for name in self._present - pods.keys():
                            self._put(name, None)
                        for name, pod in pods.items():
                            self._put(name, pod)
                    else:
                        self._put(change.object["metadata"]["name"], None if change.deleted else change.object)
        except ClusterError as error:
            self._failure = error
            for queue in self._queues.values():
                queue.put_nowait(error)

    def _put(self, name: str, state: Object | None) -> None:
        (self._present.discard if state is None else self._present.add)(name)
        if name not in self._started:
            self._queues[name].put_nowait(state)
