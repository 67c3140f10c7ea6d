"""Deletes pods during a run: the client's own reaction to events of policies, and the slowest one.

The trap: a controller replaces its pod by one with another name, which does the same again. Each pod is deleted once,
by its uid, so that another pod of the same name is never deleted.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from kubectl_gadget.background_tasks import Tasks, as_gadget_error
from kubectl_gadget.cluster.api.failure import Access
from kubectl_gadget.cluster.api.requests import Api
from kubectl_gadget.cluster.api.resources import PODS
from kubectl_gadget.errors import UsageError
from kubectl_gadget.session.services import Surroundings

_END_SECONDS = 30.0
Say = Callable[[str], None]


class PodDeleter:
    """A service of a run (`serve`). `delete` may be called from any thread."""

    def __init__(self, namespace: str | None, say: Say, end_seconds: float = _END_SECONDS) -> None:
        """`namespace` is the only one whose pods may be deleted; None: any."""
        self._namespace = namespace
        self._say = say
        self._end_seconds = end_seconds
        self._begun: set[str] = set()
        self._deletions: _Deletions | None = None

    @asynccontextmanager
    async def serve(self, run: Surroundings) -> AsyncIterator[None]:
        """Raises ForbiddenError when pods of the namespace may not be deleted. Waits for deletions at the end."""
        if run.api is None:
            raise UsageError("without a cluster there are no pods to delete")
        await run.api.require([Access("delete", PODS.plural, self._namespace)], "delete pods")
        deletions = self._deletions = _Deletions(run.api, run.tasks, self._say)
        yield
        await deletions.finish(self._end_seconds)

    def delete(self, namespace: str, pod: str, uid: str, why: str) -> None:
        """Deletes a pod at once, without a grace period, unless its deletion has already begun."""
        if uid not in self._begun and self._deletions is not None:
            self._begun.add(uid)
            self._deletions.begin(namespace, pod, uid, why)


class _Deletions:
    """The deletions of one run."""

    def __init__(self, api: Api, tasks: Tasks, say: Say) -> None:
        self._api = api
        self._tasks = tasks
        self._say = say
        self._loop = asyncio.get_running_loop()
        self._running: set[asyncio.Task[None]] = set()

    def begin(self, namespace: str, pod: str, uid: str, why: str) -> None:
        """Starts a deletion. May be called from any thread."""
        self._loop.call_soon_threadsafe(self._start, namespace, pod, uid, why)

    def _start(self, namespace: str, pod: str, uid: str, why: str) -> None:
        task = self._tasks.start(self._delete(namespace, pod, uid, why), f"deleting {namespace}/{pod}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _delete(self, namespace: str, pod: str, uid: str, why: str) -> None:
        try:
            gone = await self._api.delete(PODS, pod, namespace, uid=uid, grace_seconds=0)
        except Exception as error:
            self._say(f"{namespace}/{pod} is not deleted: {as_gadget_error(error)}")
        else:
            self._say(f"{namespace}/{pod} {'deleted' if gone else 'was gone already'}: {why}")

    async def finish(self, seconds: float) -> None:
        """Waits for deletions that were started, at most `seconds`."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=seconds)
            for task in late:
                what = task.get_name().removeprefix("deleting ")
                self._say(f"{what} may still exist: the API server did not answer in {seconds:.0f} s")
