"""The namespace that runs on demand share: the first one creates it, each keeps it, and minutes after the last it goes.

Kubernetes takes 5 s and more to delete a namespace, and creates nothing in it during this time. So no run deletes it:
it expires. A Job with a time limit owns a Service; the API server gives each Service an IPAddress, and removes both
together; and that IPAddress, which like a namespace is in no namespace, owns the namespace. Every run postpones the
Job's end, and the cluster does the rest, also if all clients were killed. Once the Job is gone, nothing stops
that, so a run must find the Job alive after it has created its own, or go elsewhere (docs/design/cluster.md).
"""

import asyncio
import json
import time
from contextlib import aclosing, closing, suppress
from datetime import datetime

from kubectl_gadget.agents import manifests
from kubectl_gadget.errors import ClusterError, DeployError, ForbiddenError
from kubectl_gadget.kube import kubeconfig
from kubectl_gadget.kube.cluster_options import KubeOptions
from kubectl_gadget.kube.failure import StatusError
from kubectl_gadget.kube.informer import Synced, WatchScope, follow
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.kube.resources import IP_ADDRESSES, JOBS, NAMESPACES, PODS, SERVICES, Object, Resource

KEPT_SECONDS = 180
"""The namespace is deleted this long after the last sign of a run."""
SIGN_SECONDS = 60.0
_SETTLED_SECONDS = 3.0
"""A run that ends waits this long for its requests about the namespace."""
_POLL_SECONDS = 0.2


class SharedNamespace:
    """One run's hold on the namespace."""

    def __init__(self, api: Api, name: str, anchor: Object) -> None:
        """`anchor` is the run's own Job, just created in the namespace."""
        self._api = api
        self._name = name
        self._run = anchor["metadata"]["name"]
        # The API server's clock; this machine's clock may be wrong.
        self._server_clock = _seconds(anchor) - time.monotonic()
        self._expiry_made: float | None = None
        """when the Job of the namespace was created, by the API server's clock; None if there is none that lives"""
        self._is_settled = asyncio.Event()

    async def hold(self) -> bool:
        """Returns False if the namespace is being deleted, or is about to be. Otherwise it stays while `keep` runs, or
        while the run's anchor exists in clusters where namespaces cannot expire."""
        # Whoever has looked at the namespace before, and found no run in it, can then no longer delete it.
        mark = {"metadata": {"annotations": {manifests.LATEST_ANNOTATION: self._run}}}
        try:
            namespace = await self._api.patch(NAMESPACES, self._name, mark)
            return not is_ending(namespace) and (await self._renew() or not expires(namespace))
        except StatusError as error:
            return error.code != 404
        except ClusterError:
            return True  # without the rights, or without an answer, in which case the next request reports that

    async def keep(self) -> None:
        """Postpones the end of the namespace until cancelled."""
        while True:
            # Without the rights for it, or in a cluster that cannot do it, the last run deletes the namespace.
            with suppress(ClusterError):
                if not await self._renew():
                    await self._let_expire()
            self._is_settled.set()
            await asyncio.sleep(SIGN_SECONDS)

    async def settle(self) -> None:
        """Waits until `keep` has asked for all that it needs, for a limited time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTLED_SECONDS):
                await self._is_settled.wait()

    async def _renew(self) -> bool:
        """Postpones the end. Returns False if the namespace has no Job that lives."""
        if self._expiry_made is None:
            found = await self._find(JOBS)
            if found is None or is_ending(found):
                return False
            self._expiry_made = _seconds(found)
        changed = {"spec": {"ttlSecondsAfterFinished": self._seconds_since(self._expiry_made) + KEPT_SECONDS}}
        try:
            job = await self._api.patch(JOBS, manifests.EXPIRY, changed, self._name)
        except StatusError as error:
            if error.code != 404:
                raise
        else:
            if not is_ending(job):
                return True
        self._expiry_made = None
        return False

    async def _let_expire(self) -> None:
        """Makes what owns the namespace, unless it has an owner. Raises ClusterError."""
        namespace = await self._api.get(NAMESPACES, self._name)
        if namespace is None or is_ending(namespace) or expires(namespace) or not manifests.is_on_demand(namespace):
            return
        job = await self._make(JOBS, manifests.expiry_job(self._name, KEPT_SECONDS))
        if job is None or is_ending(job):
            return
        service = await self._make(SERVICES, manifests.expiry_service(self._name, job))
        if service is None or is_ending(service) or not _is_owned(service, job):
            return  # an earlier Job's namespace is about to be removed
        address = await self._api.get(IP_ADDRESSES, service["spec"]["clusterIP"])
        if address is None:
            return
        # Only as it was found: `deploy` may have made it permanent since.
        metadata = {
            "ownerReferences": [manifests.owner_reference(IP_ADDRESSES, address)],
            "resourceVersion": namespace["metadata"]["resourceVersion"],
        }
        await self._api.patch(NAMESPACES, self._name, {"metadata": metadata})
        self._expiry_made = _seconds(job)

    async def _make(self, resource: Resource, body: Object) -> Object | None:
        """Returns the object, created if there was none; None if it has just gone."""
        try:
            return await self._api.create(resource, body, self._name)
        except StatusError as error:
            if error.reason != "AlreadyExists":
                raise
            return await self._find(resource)

    async def _find(self, resource: Resource) -> Object | None:
        """Uses `list`, which the deployers' role has for all namespaces."""
        fields = f"metadata.name={manifests.EXPIRY}"
        return next(iter((await self._api.find(resource, self._name, fields=fields)).items), None)

    def _seconds_since(self, then: float) -> int:
        return max(0, int(time.monotonic() + self._server_clock - then))


def is_ending(found: Object) -> bool:
    """True if the object is being deleted."""
    return "deletionTimestamp" in found["metadata"]


def expires(namespace: Object) -> bool:
    """True if the cluster deletes the namespace by itself when no run postpones that any more."""
    owners = namespace["metadata"].get("ownerReferences") or ()
    return any(owner["kind"] == IP_ADDRESSES.kind for owner in owners)


async def make_permanent(api: Api, namespace: Object) -> Object:
    """Takes the mark and the end from a namespace that a run created. Returns the namespace as it is then."""
    name = namespace["metadata"]["name"]
    annotations = dict.fromkeys((manifests.ON_DEMAND_ANNOTATION, manifests.LATEST_ANNOTATION))
    changed = await api.patch(NAMESPACES, name, {"metadata": {"annotations": annotations, "ownerReferences": None}})
    with suppress(ForbiddenError):  # it ends by itself, and owns the namespace no longer
        await api.delete(JOBS, manifests.EXPIRY, name)
    return changed


async def until_gone(api: Api, namespace: str, seconds: float) -> None:
    """Waits until a namespace that is being deleted is gone, perhaps with a new one of the same name in its place.
    Raises DeployError after this time."""
    found: Object | None = None
    try:
        async with asyncio.timeout(seconds):
            while True:
                found = await api.get(NAMESPACES, namespace)
                if found is None or not is_ending(found):
                    return
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        why = "".join(f"; {reason}" for reason in _hindrances(found or {}))
        raise DeployError(
            f"Kubernetes has not deleted the namespace {namespace} after {seconds:.0f} s{why}",
            f"kubectl get namespace {namespace} -o yaml",
        ) from None


def _hindrances(namespace: Object) -> list[str]:
    """Returns what keeps Kubernetes from deleting a namespace, in its words."""
    conditions = namespace.get("status", {}).get("conditions") or ()
    return [str(one.get("message")) for one in conditions if one.get("status") == "True" and one.get("message")]


def _is_owned(found: Object, owner: Object) -> bool:
    uids = [one["uid"] for one in found["metadata"].get("ownerReferences") or ()]
    return owner["metadata"]["uid"] in uids


def _seconds(found: Object) -> float:
    """Returns when the API server created the object."""
    return datetime.fromisoformat(found["metadata"]["creationTimestamp"]).timestamp()


# The end of a run: remove its anchor Job with its pods; and where namespaces cannot expire, also the namespace if
# no other run uses it.


_SECONDS = 10.0
_LOOKS = 5
WAITS = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)
"""Seconds before each try for a run whose client is gone. An API server that restarts is back by then."""


async def remove_as_ordered(order: bytes) -> None:
    """Carries out a reaper's order, if the kubeconfig still leads to the same server, and retries after failures.
    Raises ClusterError, UsageError."""
    what = json.loads(order)
    cluster = kubeconfig.load(KubeOptions(**what["kube"]))
    if cluster.server != what["server"]:
        return
    with closing(Api(cluster)) as api:
        for seconds in WAITS:
            await asyncio.sleep(seconds)
            if not await remove(api, what["namespace"], what["run"]):
                return


async def remove(api: Api, namespace: str, run: str) -> list[str]:
    """Deletes everything that `run` created, and returns the names of what may remain. Never raises ClusterError."""
    anchor = manifests.anchor_name(run)
    try:
        await api.delete(JOBS, anchor, namespace)
        if await _remove_namespace(api, namespace):
            return []
        async with asyncio.timeout(_SECONDS):
            return await _until_deleted(api, namespace, run)
    except (ClusterError, TimeoutError):
        return [f"job/{anchor} and its pods in namespace {namespace}"]


async def _remove_namespace(api: Api, name: str) -> bool:
    """Deletes the namespace if a run created it, none uses it, and it does not expire. Returns True if it is gone or
    being deleted."""
    for _ in range(_LOOKS):
        try:
            found = await api.get(NAMESPACES, name)
        except ForbiddenError:
            return False  # a client that may not see it did not create it
        if found is None or is_ending(found):
            return True
        metadata = found["metadata"]
        if not manifests.is_on_demand(found) or expires(found) or await _is_used(api, name):
            return False
        if await api.delete(NAMESPACES, name, uid=metadata["uid"], version=metadata["resourceVersion"]):
            return True
    return False


async def _is_used(api: Api, namespace: str) -> bool:
    """True if a run is in it, or a pod that belongs to no run."""
    pods = (await api.find(PODS, namespace)).items
    if any(manifests.RUN_LABEL not in (pod["metadata"].get("labels") or {}) for pod in pods):
        return True
    jobs = (await api.find(JOBS, namespace)).items
    return any(job["metadata"]["name"] != manifests.EXPIRY for job in jobs)


async def _until_deleted(api: Api, namespace: str, run: str) -> list[str]:
    """Waits until the cluster has started to delete every pod of this run."""
    remaining: dict[str, Object] = {}
    scope = WatchScope(PODS, namespace, labels=f"{manifests.RUN_LABEL}={run}")
    async with aclosing(follow(api, scope)) as changes:
        async for change in changes:
            if isinstance(change, Synced):
                remaining = {pod["metadata"]["name"]: pod for pod in change.items}
            elif change.deleted:
                remaining.pop(change.object["metadata"]["name"], None)
            else:
                remaining[change.object["metadata"]["name"]] = change.object
            if all("deletionTimestamp" in pod["metadata"] for pod in remaining.values()):
                return []
    return sorted(remaining)
