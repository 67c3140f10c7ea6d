"""Deletes pods while a run goes on: the client's own reaction to events of policies, the latest of all ways.

It works in a thread with a loop of its own, since whoever sees events must not wait for the API server. The trap: a pod
of a controller comes back under another name, and does the same again; each pod is deleted once, by its uid, so that it
is never another one of the same name.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from kubectl_gadget.background_tasks import as_gadget_error
from kubectl_gadget.cluster.api import kubeconfig
from kubectl_gadget.cluster.api.failure import Access
from kubectl_gadget.cluster.api.requests import Api
from kubectl_gadget.cluster.api.resources import PODS
from kubectl_gadget.cluster.options import KubeOptions

_END_SECONDS = 30.0
Say = Callable[[str], None]


class PodDeleter:
    """`delete` may be called from any thread."""

    def __init__(self, api: Api, loop: asyncio.AbstractEventLoop, say: Say, end_seconds: float = _END_SECONDS) -> None:
        self._end_seconds = end_seconds
        self._api = api
        self._loop = loop
        self._say = say
        self._begun: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def delete(self, namespace: str, pod: str, uid: str, why: str) -> None:
        """Deletes a pod at once, without grace, unless that has begun."""
        if uid not in self._begun:
            self._begun.add(uid)
            self._loop.call_soon_threadsafe(self._start, namespace, pod, uid, why)

    def _start(self, namespace: str, pod: str, uid: str, why: str) -> None:
        task = self._loop.create_task(self._delete(namespace, pod, uid, why), name=f"deleting {namespace}/{pod}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _delete(self, namespace: str, pod: str, uid: str, why: str) -> None:
        try:
            gone = await self._api.delete(PODS, pod, namespace, uid=uid, grace_seconds=0)
        except Exception as error:
            self._say(f"{namespace}/{pod} is not deleted: {as_gadget_error(error)}")
        else:
            self._say(f"{namespace}/{pod} {'deleted' if gone else 'was gone already'}: {why}")

    async def finish(self) -> None:
        """Waits for what was begun, but not for ever for an API server that does not answer."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=self._end_seconds)
            for task in late:
                what = task.get_name().removeprefix("deleting ")
                self._say(f"{what} may not be deleted: the API server did not answer in {self._end_seconds:.0f} s")
                task.cancel()


@contextmanager
def deleting_pods(kube: KubeOptions, namespace: str | None, say: Say) -> Iterator[PodDeleter]:
    """Raises ForbiddenError when pods of the namespace (None: of all) may not be deleted."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="deleting pods", daemon=True)
    thread.start()
    try:
        with closing(Api(kubeconfig.load(kube), say)) as api:
            wanted = [Access("delete", PODS.plural, namespace)]
            asyncio.run_coroutine_threadsafe(api.require(wanted, "delete pods"), loop).result()
            deleter = PodDeleter(api, loop, say)
            yield deleter
            asyncio.run_coroutine_threadsafe(deleter.finish(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_END_SECONDS)
        if not thread.is_alive():
            loop.close()
