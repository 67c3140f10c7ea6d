"""Deletes pods during a run: the client's own reaction to events of policies, and the slowest one.

The trap: a controller replaces its pod by one with another name, which does the same again. Each pod is deleted once,
by its uid, so that another pod of the same name is never deleted.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from kubectl_gadget.background_tasks import as_gadget_error
from kubectl_gadget.errors import UsageError
from kubectl_gadget.kube.api.failure import Access
from kubectl_gadget.kube.api.requests import Api
from kubectl_gadget.kube.api.resources import PODS
from kubectl_gadget.run.services import Surroundings

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
        self._start: Callable[[str, str, str, str], object] | None = None

    @asynccontextmanager
    async def serve(self, run: Surroundings) -> AsyncIterator[None]:
        """Raises ForbiddenError when pods of the namespace may not be deleted. Waits for deletions at the end."""
        if run.api is None:
            raise UsageError("without a cluster there are no pods to delete")
        await run.api.require([Access("delete", PODS.plural, self._namespace)], "delete pods")
        api, loop, running = run.api, asyncio.get_running_loop(), set[asyncio.Task[None]]()

        def start(namespace: str, pod: str, uid: str, why: str) -> None:
            task = run.tasks.start(self._delete(api, namespace, pod, uid, why), f"deleting {namespace}/{pod}")
            running.add(task)
            task.add_done_callback(running.discard)

        self._start = lambda *pod: loop.call_soon_threadsafe(start, *pod)
        yield
        if running:
            _, late = await asyncio.wait(running, timeout=self._end_seconds)
            for task in late:
                what = task.get_name().removeprefix("deleting ")
                self._say(f"{what} may still exist: the API server did not answer in {self._end_seconds:.0f} s")

    def delete(self, namespace: str, pod: str, uid: str, why: str) -> None:
        """Deletes a pod at once, without a grace period, unless its deletion has already begun."""
        if uid not in self._begun and self._start is not None:
            self._begun.add(uid)
            self._start(namespace, pod, uid, why)

    async def _delete(self, api: Api, namespace: str, pod: str, uid: str, why: str) -> None:
        try:
            gone = await api.delete(PODS, pod, namespace, uid=uid, grace_seconds=0)
        except Exception as error:
            self._say(f"{namespace}/{pod} is not deleted: {as_gadget_error(error)}")
        else:
            self._say(f"{namespace}/{pod} {'deleted' if gone else 'was gone already'}: {why}")
