"""Deletes pods during a run: the client's own reaction to events of policies, and the slowest one.

The trap: a controller replaces its pod by one with another name, which does the same again. Each pod is deleted once,
by its uid, so that another pod of the same name is never deleted.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from kubectl_gadget.errors import ForbiddenError, GadgetError, UsageError
from kubectl_gadget.kube.api.failure import Access
from kubectl_gadget.kube.api.requests import Api
from kubectl_gadget.kube.api.resources import PODS
from kubectl_gadget.kube.pod_identity import mirror_hash
from kubectl_gadget.run.services import Surroundings

_END_SECONDS = 30.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
"""Seconds between two attempts; each pause is twice as long as the one before."""
Say = Callable[[str], None]


class PodDeleter:
    """A service of a run (`serve`). `delete` may be called from any thread."""

    def __init__(
        self, namespace: str | None, say: Say, end_seconds: float = _END_SECONDS, pause: float = _FIRST_PAUSE
    ) -> None:
        """`namespace` is the only one whose pods may be deleted; None: any. `pause` is the first pause after a failed
        attempt, in seconds."""
        self._namespace = namespace
        self._say = say
        self._end_seconds = end_seconds
        self._pause = pause
        self._begun: set[str] = set()
        self._ending = asyncio.Event()
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
        self._ending.set()
        if running:
            _, late = await asyncio.wait(running, timeout=self._end_seconds)
            for task in late:
                what = task.get_name().removeprefix("deleting ")
                self._say(f"{what} may still exist: the API server did not answer in {self._end_seconds:.0f} s")

    def delete(self, namespace: str, pod: str, uid: str, why: str) -> None:
        """Deletes a pod at once, without a grace period, unless its deletion has already begun."""
        key = uid or f"{namespace}/{pod}"
        if key not in self._begun and self._start is not None:
            self._begun.add(key)
            self._start(namespace, pod, uid, why)

    async def _delete(self, api: Api, namespace: str, pod: str, uid: str, why: str) -> None:
        """Tries until the pod is gone or the run ends. A refusal is not retried, but the pod's next violation is, after
        the longest pause: an API request for each of its events would harm the API server."""
        name, pause, said = f"{namespace}/{pod}", self._pause, ""
        if not uid:
            self._say(f"{name} is not deleted: its UID is not known, and another pod of this name might be deleted")
            return
        while True:
            try:
                gone = await api.delete(PODS, pod, namespace, uid=uid, grace_seconds=0)
            except GadgetError as error:
                is_refused, is_last = isinstance(error, ForbiddenError), self._ending.is_set()
                if is_refused or is_last or str(error) != said:
                    self._say(f"{name} is not deleted{'' if is_refused or is_last else ' yet'}: {error}")
                said = str(error)
                if is_last:
                    return
                await self._sleep(_LONGEST_PAUSE if is_refused else pause)
                if is_refused:
                    self._begun.discard(uid)
                    return
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                if gone:
                    self._say(f"{name} deleted: {why}")
                elif await self._is_static(api, namespace, pod, uid):
                    self._say(f"{name} is not deleted: it is a static pod, which only a file on its node can end")
                else:
                    self._say(f"{name} was gone already: {why}")
                return

    async def _sleep(self, seconds: float) -> None:
        """Sleeps for these seconds, or until the run ends."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), seconds)

    async def _is_static(self, api: Api, namespace: str, pod: str, uid: str) -> bool:
        """True if the API server's pod of this name mirrors a static pod with this UID. Pods may be deleted without the
        right to read them; then the answer is False."""
        try:
            found = await api.get(PODS, pod, namespace)
        except GadgetError:
            return False
        return found is not None and mirror_hash(found) == uid
