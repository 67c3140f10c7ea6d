"""Agents that one run starts for itself: plain pods, each bound to its node, in a namespace that may be created for
them.

They all belong to the run's anchor job (manifests.anchor_job), so one deletion removes them. If the client is killed,
the process of reaper.py does that; if the client's machine fails, too, the cluster does it soon after. The namespace is
shared by all runs (shared_namespace.py). It may be terminating, for at least 5 s, and nothing can be created in it
until it is gone. The run then uses a second namespace, and waits only if it cannot.
"""

import asyncio
import getpass
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from kubectl_gadget.agents import manifests, reaper, shared_namespace
from kubectl_gadget.agents.pod_readiness import StartingPods, wait_running
from kubectl_gadget.agents.reaper import Reaper
from kubectl_gadget.agents.shared_namespace import SharedNamespace, is_ending, until_gone
from kubectl_gadget.background_tasks import Tasks, cancel
from kubectl_gadget.errors import ClusterError, DeployError, ForbiddenError
from kubectl_gadget.kube.cluster_options import AgentOptions
from kubectl_gadget.kube.connection import in_thread
from kubectl_gadget.kube.failure import Access, StatusError, is_denied_by_policy
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.kube.resources import JOBS, NAMESPACES, PODS, Object

Say = Callable[[str, str], None]
"""Reports progress: (node, text)."""

REMEDY = "ask for the role in manifests/rbac-deployer.yaml, or have someone run: kubectl gadget deploy"
_BY_POLICY = (
    "exclude the namespace from the policy, or let an administrator run kubectl gadget deploy; ephemeral containers do "
    "not help (docs/platforms.md, Where policy forbids new pods)"
)
_ANCHOR_SECONDS = 20
"""A run's objects are deleted this long after its client's last sign of life: nothing is left after 30 s."""
SIGN_SECONDS = 5.0
_POLL_SECONDS = 0.2
FRESH_SECONDS = 1.0
"""Seconds a look-ahead result stays valid."""


class _Found(NamedTuple):
    """The facts to know before anything is created."""

    namespace: Object | None
    ends: bool
    """it is being deleted, or about to be"""
    is_hidden: bool
    """we may not see it"""
    missing: Sequence[Access] = ()
    """rights that we do not have"""


class OnDemandAgents:
    """All pods that one run started. Callers must await `close` at the end."""

    def __init__(
        self, api: Api, options: AgentOptions, tasks: Tasks, run: str, say: Say, gadgets: Sequence[str] = ()
    ) -> None:
        """`tasks` owns the task that keeps the agents alive. `gadgets` is what other users are told."""
        self._gadgets = gadgets
        self._user: str | None = None
        """who started the run, for other users; None: not asked yet"""
        self._tasks = tasks
        self._api = api
        self._options = options
        self.run = run
        self._say = say
        self._lock = asyncio.Lock()
        self._anchor: Object | None = None
        self._anchored_at = 0.0
        self._keeper: asyncio.Task[None] | None = None
        self.holds: list[tuple[SharedNamespace, asyncio.Task[None]]] = []
        self._second = "" if options.pins else manifests.second_namespace(options.namespace)
        """the namespace to use while Kubernetes deletes an earlier run's namespace; "" if it cannot be, as with pins,
        which name the first one as their owner"""
        self._used: set[str] = set()
        """namespaces in which anything may have been created"""
        self.reapers: dict[str, Reaper] = {}
        """by namespace"""
        self._ahead: asyncio.Task[None] | None = None
        self.found: tuple[_Found, float] | None = None
        """the look-ahead result, and its time (monotonic seconds)"""
        self._starting: dict[str, StartingPods] = {}
        """by namespace"""
        self._starts = 0
        """of agents that have not started yet"""

    def look_ahead(self) -> None:
        """Begins to find out what the first `start` has to know, without creating anything."""
        self._ahead = self._tasks.start(self._look_ahead(), "rights to start agents")

    async def start(self, node: str) -> Object:
        """Returns a running agent pod on `node`. Raises ForbiddenError before anything is created, or DeployError."""
        self._starts += 1
        try:
            return await self._start(node)
        finally:
            self._starts -= 1
            if not self._starts:
                for pods in self._starting.values():
                    pods.end()
                self._starting.clear()

    async def _start(self, node: str) -> Object:
        for last in (False, True):
            anchor, starting = await self._prepare()
            namespace = anchor["metadata"]["namespace"]
            body = manifests.on_demand_pod(self._options_in(namespace), node, self.run, anchor)
            try:
                pod = await self._api.create(PODS, body, namespace)
                break
            except StatusError as error:
                is_second = namespace == self._second
                if last or not (is_second or _namespace_is_gone(error)):
                    raise _refusal(error, namespace, node) from None
                if is_second:
                    self._second = ""  # a policy may allow agents in the first one only
                if self._anchor is anchor:
                    self._anchor = None  # an earlier run has deleted its namespace
        name = pod["metadata"]["name"]
        self._say(node, f"starting agent pod {namespace}/{name}")
        seconds, states = self._options.start_timeout, starting.states(name)
        return await wait_running(self._api, namespace, name, seconds, lambda text: self._say(node, text), states)

    async def close(self) -> list[str]:
        """Deletes everything that was created, and returns the names of what may remain. Never raises ClusterError."""
        for hold, _ in self.holds:
            await hold.settle()
        tasks = (self._keeper, self._ahead, *(task for _, task in self.holds))
        await cancel(*(task for task in tasks if task is not None))
        async with self._lock:
            self._anchor = None
            remaining = await asyncio.gather(*map(self._remove, self._used | self.reapers.keys()))
            return [name for names in remaining for name in names]

    async def _remove(self, namespace: str) -> list[str]:
        remaining = await shared_namespace.remove(self._api, namespace, self.run) if namespace in self._used else []
        if (process := self.reapers.get(namespace)) is not None:
            await in_thread(lambda: process.release(done=not remaining))
        return remaining

    def _options_in(self, namespace: str) -> AgentOptions:
        return replace(self._options, namespace=namespace)

    async def _prepare(self) -> tuple[Object, StartingPods]:
        """Checks rights, then creates namespace and anchor; once for all nodes. Returns the anchor, and the states of
        pods."""
        async with self._lock:
            if self._anchor is None:
                self._anchor = await self._make_anchor()
                self._anchored_at = time.monotonic()
                if self._keeper is None:
                    self._keeper = self._tasks.start(self._keep(), "anchor of the on-demand agents")
            return self._anchor, self._follow(self._anchor["metadata"]["namespace"])

    async def _make_anchor(self) -> Object:
        name = self._options.namespace
        ahead, self.found = self.found, None
        found = ahead[0] if ahead and time.monotonic() - ahead[1] < FRESH_SECONDS else await self._find(name)
        until = time.monotonic() + self._options.start_timeout
        while True:
            anchor = await self._make_anchor_in(name, found) or await self._make_second_anchor()
            if anchor is not None:
                return anchor
            self._api.warn_once(f"waiting until Kubernetes has deleted the namespace {name} of earlier runs")
            await asyncio.sleep(_POLL_SECONDS)
            await until_gone(self._api, name, max(until - time.monotonic(), 0))
            found = await self._find(name)

    async def _make_second_anchor(self) -> Object | None:
        """Returns an anchor in the second namespace; None if it is not ours to use."""
        if not self._second:
            return None
        with suppress(ClusterError):
            found = await self._find(self._second)
            is_ours = found.namespace is None or manifests.is_on_demand(found.namespace)
            if is_ours and not (found.is_hidden or found.missing):
                return await self._make_anchor_in(self._second, found)
        return None

    async def _make_anchor_in(self, namespace: str, found: _Found) -> Object | None:
        """Returns an anchor in the namespace; None if that is being deleted, or about to be."""
        if found.ends:
            return None
        if found.missing:
            raise self._api.forbidden(found.missing, "start agents on demand", REMEDY)
        await self._watch_over(namespace)
        self._used.add(namespace)
        self._follow(namespace)
        options = self._options_in(namespace)
        is_new = found.namespace is None and not found.is_hidden
        if is_new:
            await self._make_namespace(options)
        try:
            job = manifests.anchor_job(options, self.run, _ANCHOR_SECONDS, self._user or "", self._gadgets)
            anchor = await self._api.create(JOBS, job, namespace)
        except StatusError as error:
            if _namespace_is_gone(error):
                return None
            raise _refusal(error, namespace, None) from None
        if not is_new and (found.namespace is None or not manifests.is_on_demand(found.namespace)):
            return anchor
        hold = SharedNamespace(self._api, namespace, anchor)
        if not await hold.hold():
            await self._api.delete(JOBS, anchor["metadata"]["name"], namespace)
            return None
        self.holds.append((hold, self._tasks.start(hold.keep(), f"namespace {namespace}")))
        return anchor

    def _follow(self, namespace: str) -> StartingPods:
        if namespace not in self._starting:
            self._starting[namespace] = StartingPods(self._api, self._tasks, namespace, self.run)
        return self._starting[namespace]

    async def _look_ahead(self) -> None:
        namespace = self._options.namespace
        async with self._lock:
            with suppress(ClusterError):  # which `start` gets as well
                found, _ = await asyncio.gather(self._find(namespace), self._watch_over(namespace))
                self.found = found, time.monotonic()

    async def _find(self, namespace: str) -> _Found:
        """Looks for the namespace, and for missing rights."""
        found, may_all, _ = await asyncio.gather(
            self._find_namespace(namespace), self._api.has_all_rights(), self._find_user()
        )
        if may_all:
            return found
        exists = found.is_hidden or (found.namespace is not None and not found.ends)
        return found._replace(missing=await self._api.missing(_accesses(namespace, exists)))

    async def _find_user(self) -> None:
        if self._user is None:
            self._user = " ".join(part for part in (await self._api.user(), f"({_this_client()})") if part)

    async def _find_namespace(self, name: str) -> _Found:
        try:
            found = await self._api.get(NAMESPACES, name)
        except ForbiddenError:
            return _Found(None, False, True)  # creating the pods will show whether it exists
        return _Found(found, found is not None and is_ending(found), False)

    async def _watch_over(self, namespace: str) -> None:
        """Starts the process that removes everything if this client is killed."""
        if namespace in self.reapers:
            return
        try:
            process = await in_thread(lambda: reaper.start(self._api.cluster, namespace, self.run))
        except OSError as error:
            self._api.warn_once(
                f"if this client is killed, an empty namespace may remain, since no process can watch for it: {error}"
            )
        else:
            self.reapers[namespace] = process

    async def missing(self) -> Sequence[Access]:
        """Returns the rights for starting agents that we do not have. Raises ClusterError."""
        return (await self._find(self._options.namespace)).missing

    async def _make_namespace(self, options: AgentOptions) -> None:
        try:
            await self._api.create(NAMESPACES, manifests.namespace(options))
        except StatusError as error:
            if error.reason != "AlreadyExists":
                raise

    async def _keep(self) -> None:
        """Postpones the anchor's deletion again and again, as long as this client lives."""
        while True:
            await asyncio.sleep(SIGN_SECONDS)
            if (anchor := self._anchor) is None:
                continue
            until = int(time.monotonic() - self._anchored_at) + _ANCHOR_SECONDS
            try:
                await self._api.patch(
                    JOBS,
                    anchor["metadata"]["name"],
                    {"spec": {"ttlSecondsAfterFinished": until}},
                    anchor["metadata"]["namespace"],
                )
            except StatusError as error:
                if error.code == 404:
                    self._anchor = None  # this machine slept longer than that; the next start creates a new one
                else:
                    self._api.warn_once(f"the agents may stop before the run ends: {error}")
            except ClusterError as error:
                self._api.warn_once(f"the agents may stop before the run ends: {error}")


def _this_client() -> str:
    """Returns the name of this machine's user, and of this machine."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # Python before 3.13 raises KeyError
        user = "unknown"
    return f"{user}@{platform.node() or 'unknown'}"


def _accesses(namespace: str, exists: bool) -> list[Access]:
    wanted = [
        Access("list", PODS.plural, namespace),
        Access("watch", PODS.plural, namespace),
        Access("create", PODS.plural, namespace),
        Access("create", PODS.plural, namespace, "exec"),
        *(Access(verb, JOBS.qualified, namespace) for verb in ("create", "list", "patch", "delete")),
    ]
    if not exists:
        wanted.append(Access("create", NAMESPACES.plural))
        wanted.append(Access("delete", NAMESPACES.plural, name=namespace))
    return wanted


def _namespace_is_gone(error: StatusError) -> bool:
    return error.code in (403, 404, 409) and ("being terminated" in str(error) or error.code == 404)


def _refusal(error: StatusError, namespace: str, node: str | None) -> ClusterError:
    """Builds the error for a pod that the server refused, with a remedy."""
    what = f"the agent pod for {node}" if node else f"the run's anchor job in namespace {namespace}"
    if "PodSecurity" in str(error):
        return DeployError(
            f"{what} was refused: Pod Security of namespace {namespace} does not allow privileged pods: {error}",
            f"kubectl label --overwrite namespace {namespace} pod-security.kubernetes.io/enforce=privileged",
        )
    return DeployError(f"{what} was refused: {error}", _BY_POLICY if is_denied_by_policy(str(error)) else error.remedy)
