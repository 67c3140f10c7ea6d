"""The objects of some kinds as they are now, followed in a thread of their own.

For what has to know the cluster while a run goes on. The trap: what goes may be needed for a while, since what was seen
of it comes later; `keep_seconds` says for how long it is still given.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing, contextmanager
from typing import Any

from kubectl_gadget.background_tasks import as_gadget_error
from kubectl_gadget.cluster.api import kubeconfig
from kubectl_gadget.cluster.api.requests import Api
from kubectl_gadget.cluster.api.resources import Object, Resource
from kubectl_gadget.cluster.api.watch import Changed, Scope, Synced, follow
from kubectl_gadget.cluster.options import KubeOptions
from kubectl_gadget.errors import ClusterError, GadgetError

Objects = Mapping[Resource, list[Object]]
_SETTLE_SECONDS = 0.1
_STOP_SECONDS = 5.0
_GONE = "kubectl-gadget/gone"
"""Put into an object that was deleted: when, by the monotonic clock."""
_NEVER = float("inf")


@contextmanager
def following(
    kube: KubeOptions,
    kinds: Sequence[Resource],
    changed: Callable[[Objects], None],
    failed: Callable[[Resource | None, GadgetError], None],
    say: Callable[[str], None],
    *,
    first_seconds: float,
    keep_seconds: float = 0.0,
) -> Iterator[bool]:
    """Calls `changed` after each change, from another thread, and `failed` for a kind that cannot be listed (None: for
    all). Gives whether all is known, for which it waits for `first_seconds`."""
    known = threading.Event()
    stop: list[Any] = []

    def work() -> None:
        async def main() -> None:
            stop.append((asyncio.get_running_loop(), asyncio.current_task()))
            with closing(Api(kubeconfig.load(kube), say)) as api:
                await _Followed(kinds, changed, failed, known, keep_seconds).follow(api)

        try:
            asyncio.run(main())
        except asyncio.CancelledError:
            pass
        except Exception as error:
            failed(None, as_gadget_error(error))
        finally:
            known.set()

    thread = threading.Thread(target=work, name="objects of the cluster", daemon=True)
    thread.start()
    try:
        yield known.wait(first_seconds)
    finally:
        for loop, task in stop:
            if not loop.is_closed():
                loop.call_soon_threadsafe(task.cancel)
        thread.join(_STOP_SECONDS)


class _Followed:
    def __init__(
        self,
        kinds: Sequence[Resource],
        changed: Callable[[Objects], None],
        failed: Callable[[Resource | None, GadgetError], None],
        known: threading.Event,
        keep_seconds: float,
    ) -> None:
        self._objects: dict[Resource, dict[str, Object]] = {kind: {} for kind in kinds}
        self._missing = set(kinds)
        self._tell = changed
        self._failed = failed
        self._known = known
        self._keep_seconds = keep_seconds
        self._changed = asyncio.Event()

    async def follow(self, api: Api) -> None:
        async with asyncio.TaskGroup() as tasks:
            for kind in self._objects:
                tasks.create_task(self._follow(api, kind), name=f"watch of {kind.plural}")
            while True:
                await self._changed.wait()
                self._changed.clear()
                if not self._missing:
                    self._tell({kind: list(found.values()) for kind, found in self._objects.items()})
                    self._known.set()
                await asyncio.sleep(_SETTLE_SECONDS)

    async def _follow(self, api: Api, kind: Resource) -> None:
        try:
            async with aclosing(follow(api, Scope(kind))) as changes:
                async for change in changes:
                    self._apply(self._objects[kind], change)
                    self._has(kind)
        except ClusterError as error:
            self._failed(kind, error)
            self._has(kind)

    def _has(self, kind: Resource) -> None:
        self._missing.discard(kind)
        self._changed.set()

    def _apply(self, known: dict[str, Object], change: Synced | Changed) -> None:
        if isinstance(change, Synced):
            known.clear()
            known.update({found["metadata"]["uid"]: found for found in change.items})
            return
        uid = change.object["metadata"]["uid"]
        known[uid] = change.object
        if change.deleted:
            change.object[_GONE] = now = time.monotonic()
            limit = now - self._keep_seconds
            for uid in [uid for uid, found in known.items() if found.get(_GONE, _NEVER) <= limit]:
                del known[uid]
