"""The reactions of `enforce`'s client to a pod that violates one of its policies: delete it, or isolate it.

Events are shown in a thread of their own, so what reacts to them must accept calls from any thread.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from kubectl_gadget import gadgets
from kubectl_gadget.errors import ForbiddenError, GadgetError, UsageError
from kubectl_gadget.kube.failure import Access
from kubectl_gadget.kube.inventory import mirror_hash
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.kube.resources import PODS
from kubectl_gadget.policies.model import ENFORCING
from kubectl_gadget.policies.network.kernel_tables import HOST_ENTRY, PolicyTables, cut_off_entry, pod_entry
from kubectl_gadget.run.live_tables import Contents, LiveTables
from kubectl_gadget.run.run_options import GadgetRun
from kubectl_gadget.run.services import Service, Surroundings
from kubectl_gadget.wire.policy_events import PolicyEvent

if TYPE_CHECKING:
    from kubectl_gadget.observe.story import StoryEvent
    from kubectl_gadget.rows.containers import Container


Say = Callable[[str], None]


@dataclass(frozen=True)
class Reaction:
    """A reaction to the events of a story."""

    on_event: "Callable[[StoryEvent], None] | None" = None
    """called for each event, also for those that are not shown"""
    silent: GadgetRun | None = None
    """a gadget that the reaction needs; its rows are not part of the story"""
    services: tuple[Service, ...] = ()
    """as in RunOptions"""


def deleting_pods(namespace: str | None, say: Say) -> Reaction:
    """Deletes the pods of `namespace`, or of all namespaces, that do what a policy denies."""
    deleter = PodDeleter(namespace, say)

    def delete(container: "Container", policy: str) -> None:
        deleter.delete(container.namespace, container.pod, container.pod_uid, f"policy {policy}")

    return Reaction(partial(_react, delete), services=(deleter.serve,))


def isolating_pods(say: Say) -> Reaction:
    """Cuts the pods off the network that do what a policy denies."""
    isolation = PodIsolation(say)

    def isolate(container: "Container", policy: str) -> None:
        isolation.isolate(container.namespace, container.pod, container.pod_uid, policy)

    gadget = GadgetRun(gadgets.load_gadget("network_policy"), tables=isolation.tables)
    return Reaction(partial(_react, isolate), gadget)


def _react(act: "Callable[[Container, str], None]", entry: "StoryEvent") -> None:
    event, container = entry.happening, entry.container
    if isinstance(event, PolicyEvent) and event.action in ENFORCING and container.pod:
        act(container, event.policy)


# Deletes pods during a run: the client's own reaction to events of policies, and the slowest one.
#
# A controller replaces its pod by one with another name, which does the same again. Each pod is deleted once, by its
# uid, so that another pod of the same name is never deleted.


_END_SECONDS = 30.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds between two attempts; each pause is twice as long as the one before."""


class PodDeleter:
    """A service of a run (`serve`). `delete` may be called from any thread."""

    def __init__(
        self,
        namespace: str | None,
        say: Say,
        end_seconds: float = _END_SECONDS,
        pause: float = FIRST_PAUSE,
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
        """Delete a pod without a grace period, unless its deletion has already begun."""
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
                await self._sleep(LONGEST_PAUSE if is_refused else pause)
                if is_refused:
                    self._begun.discard(uid)
                    return
                pause = min(2 * pause, LONGEST_PAUSE)
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


# Cuts pods off the network during a run: the client's reaction to events of policies that keeps a pod alive.
#
# The node's kernel drops everything that the pod's sockets send and receive, by the programs of network policies.
# They know only the tables of this run, so no other pod is affected. A pod is identified by its UID, so a later pod
# of the same name, such as the next one of a StatefulSet, has its network. A runtime without CRI reports no UID; only
# then the name has to do.


class PodIsolation:
    """`tables` belong to the gadget network_policy. `isolate` may be called from any thread."""

    def __init__(self, say: Say) -> None:
        self.tables = LiveTables()
        self._say = say
        self._policies: dict[str, int] = {}
        """the number of each violated policy, as a subject"""
        self._cut_off: dict[str, int] = {}
        """by the pod's UID; by NAMESPACE/NAME if it has none"""
        self._show()

    def isolate(self, namespace: str, pod: str, uid: str, policy: str) -> None:
        """Cuts a pod off, unless it already is."""
        name = f"{namespace}/{pod}"
        key = uid or name
        if key in self._cut_off:
            return
        self._cut_off[key] = self._policies.setdefault(policy, len(self._policies) + 1)
        self._show()
        later = "" if uid else " (by its name, since its UID is not known: later pods of this name are cut off too)"
        self._say(f"{name} is cut off from the network: policy {policy}{later}")

    def _show(self) -> None:
        made = PolicyTables()
        for policy, subject in self._policies.items():
            made.add_subject(subject, [policy], [policy])
        pods = {pod: cut_off_entry(subject) for pod, subject in self._cut_off.items()}
        contents = Contents({"subjects": made.subjects}, "pods", pods, other=pod_entry(0), host=HOST_ENTRY)
        self.tables.replace(lambda node, addresses: contents)
