"""Agents that one run starts for itself: plain pods, each bound to its node, in a namespace that may be created for
them.

They all belong to the run's anchor job (manifests.anchor_job), so one deletion removes them. If the client is killed,
the process of reaper.py does that; if the client's machine fails, too, the cluster does it soon after, except for the
namespace. The trap: the namespace of an earlier run may still be terminating; nothing can be created in it until it is
gone, and then it has to be created again.
"""

import asyncio
import time
from collections.abc import Callable

from kubectl_gadget.background_tasks import Tasks, cancel
from kubectl_gadget.cluster.agents import manifests, reaper, removal
from kubectl_gadget.cluster.agents.pod_readiness import wait_running
from kubectl_gadget.cluster.agents.reaper import Reaper
from kubectl_gadget.cluster.api.failure import Access, StatusError, is_denied_by_policy
from kubectl_gadget.cluster.api.requests import Api
from kubectl_gadget.cluster.api.resources import JOBS, NAMESPACES, PODS, Object
from kubectl_gadget.cluster.api.threads import in_thread
from kubectl_gadget.cluster.cluster_options import AgentOptions
from kubectl_gadget.errors import ClusterError, DeployError, ForbiddenError

Say = Callable[[str, str], None]
"""Reports progress: (node, text)."""

REMEDY = "ask for the role in manifests/rbac-deployer.yaml, or have someone run: kubectl gadget deploy"
_BY_POLICY = (
    "exclude the namespace from the policy, or let an administrator run kubectl gadget deploy; ephemeral containers do "
    "not help (docs/platforms.md, Where policy forbids new pods)"
)
_ANCHOR_SECONDS = 20
"""A run's objects are deleted this long after its client's last sign of life: nothing is left after 30 s."""
_SIGN_SECONDS = 5.0


class OnDemandAgents:
    """All pods that one run started. Callers must await `close` at the end."""

    def __init__(self, api: Api, options: AgentOptions, tasks: Tasks, run: str, say: Say) -> None:
        """`tasks` owns the task that keeps the agents alive."""
        self._tasks = tasks
        self._api = api
        self._options = options
        self._run = run
        self._say = say
        self._lock = asyncio.Lock()
        self._anchor: Object | None = None
        self._anchored_at = 0.0
        self._keeper: asyncio.Task[None] | None = None
        self._begun = False
        """whether anything may have been created"""
        self._reaper: Reaper | None = None

    async def start(self, node: str) -> Object:
        """Returns a running agent pod on `node`. Raises ForbiddenError before anything is created, or DeployError."""
        for last in (False, True):
            anchor = await self._prepare()
            try:
                pod = await self._create(node, anchor)
                break
            except StatusError as error:
                if last or not _namespace_is_gone(error):
                    raise _refusal(error, self._options.namespace, node) from None
                self._anchor = None  # an earlier run deleted its namespace meanwhile
        name = pod["metadata"]["name"]
        self._say(node, f"starting agent pod {self._options.namespace}/{name}")
        return await wait_running(
            self._api, self._options.namespace, name, self._options.start_timeout, lambda text: self._say(node, text)
        )

    async def close(self) -> list[str]:
        """Deletes everything that was created, and returns the names of what may remain. Never raises ClusterError."""
        if self._keeper is not None:
            await cancel(self._keeper)
        async with self._lock:
            if not self._begun:
                return []
            self._anchor = None
            remaining = await removal.remove(self._api, self._options.namespace, self._run)
            if (process := self._reaper) is not None:
                await in_thread(lambda: process.release(done=not remaining))
            return remaining

    async def _create(self, node: str, anchor: Object) -> Object:
        body = manifests.on_demand_pod(self._options, node, self._run, anchor)
        return await self._api.create(PODS, body, self._options.namespace)

    async def _prepare(self) -> Object:
        """Checks rights, then creates namespace and anchor; once for all nodes."""
        async with self._lock:
            if self._anchor is None:
                exists = await self._find_namespace()
                await self._api.require(self._accesses(exists), "start agents on demand", REMEDY)
                await self._begin()
                if not exists:
                    await self._make_namespace()
                body = manifests.anchor_job(self._options, self._run, _ANCHOR_SECONDS)
                try:
                    self._anchor = await self._api.create(JOBS, body, self._options.namespace)
                except StatusError as error:
                    raise _refusal(error, self._options.namespace, None) from None
                self._anchored_at = time.monotonic()
                if self._keeper is None:
                    self._keeper = self._tasks.start(self._keep(), "anchor of the on-demand agents")
            return self._anchor

    async def _begin(self) -> None:
        """From here on there are objects to delete, even when this client is killed: starts the reaper."""
        if self._begun:
            return
        self._begun = True
        try:
            self._reaper = await in_thread(lambda: reaper.start(self._api.cluster, self._options.namespace, self._run))
        except OSError as error:
            self._api.warn_once(
                f"if this client is killed, an empty namespace may remain, since no process can watch for it: {error}"
            )

    async def missing(self) -> list[Access]:
        """Returns the rights for starting agents that we do not have. Raises ClusterError."""
        try:
            exists = await self._api.get(NAMESPACES, self._options.namespace) is not None
        except ForbiddenError:
            exists = True  # creating the pods will show it
        return await self._api.missing(self._accesses(exists))

    def _accesses(self, namespace_exists: bool) -> list[Access]:
        namespace = self._options.namespace
        wanted = [
            Access("list", PODS.plural, namespace),
            Access("watch", PODS.plural, namespace),
            Access("create", PODS.plural, namespace),
            Access("create", PODS.plural, namespace, "exec"),
            *(Access(verb, JOBS.qualified, namespace) for verb in ("create", "list", "patch", "delete")),
        ]
        if not namespace_exists:
            wanted.append(Access("create", NAMESPACES.plural))
            wanted.append(Access("delete", NAMESPACES.plural, name=namespace))
        return wanted

    async def _find_namespace(self) -> bool:
        """Returns whether the namespace exists. Waits while it is being deleted."""
        name = self._options.namespace
        try:
            found = await self._api.get(NAMESPACES, name)
        except ForbiddenError:
            return True  # creating the pods will show it
        if found is None or "deletionTimestamp" not in found["metadata"]:
            return found is not None
        self._api.warn_once(f"waiting until the namespace {name} of an earlier run is gone")
        await removal.until_gone(self._api, name, self._options.start_timeout)
        return False

    async def _make_namespace(self) -> None:
        try:
            await self._api.create(NAMESPACES, manifests.namespace(self._options))
        except StatusError as error:
            if error.reason != "AlreadyExists":
                raise

    async def _keep(self) -> None:
        """Postpones the anchor's deletion again and again, as long as this client lives."""
        while True:
            await asyncio.sleep(_SIGN_SECONDS)
            if self._anchor is None:
                continue
            until = int(time.monotonic() - self._anchored_at) + _ANCHOR_SECONDS
            try:
                await self._api.patch(
                    JOBS,
                    self._anchor["metadata"]["name"],
                    {"spec": {"ttlSecondsAfterFinished": until}},
                    self._options.namespace,
                )
            except StatusError as error:
                if error.code == 404:
                    self._anchor = None  # this machine slept longer than that; the next start creates a new one
                else:
                    self._api.warn_once(f"the agents may stop before the run ends: {error}")
            except ClusterError as error:
                self._api.warn_once(f"the agents may stop before the run ends: {error}")


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
