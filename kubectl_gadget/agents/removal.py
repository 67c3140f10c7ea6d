"""Removes what one run created in a cluster: its anchor Job with its pods; and where namespaces cannot expire
(shared_namespace.py), also the namespace if no other run uses it.

A run uses the namespace as long as its anchor job exists. The job is created before the pods, and deleted before them.
So of two runs that end at once, the later one finds no job, and removes the namespace. The trap: another user may begin
a run, or `deploy`, between a check and a deletion. Both change the namespace, so only the version that was checked is
deleted.
"""

import asyncio
import json
from contextlib import aclosing, closing

from kubectl_gadget.agents import manifests
from kubectl_gadget.agents.shared_namespace import expires, is_ending
from kubectl_gadget.errors import ClusterError, ForbiddenError
from kubectl_gadget.kube import kubeconfig
from kubectl_gadget.kube.cluster_options import KubeOptions
from kubectl_gadget.kube.requests import Api
from kubectl_gadget.kube.resources import JOBS, NAMESPACES, PODS, Object
from kubectl_gadget.kube.watch import Synced, WatchScope, follow

_SECONDS = 10.0
_LOOKS = 5
_WAITS = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)
"""Seconds before each try for a run whose client is gone. An API server that restarts is back by then."""


async def remove_as_ordered(order: bytes) -> None:
    """Carries out a reaper's order, if the kubeconfig still leads to the same server, and retries after failures.
    Raises ClusterError, UsageError."""
    what = json.loads(order)
    cluster = kubeconfig.load(KubeOptions(**what["kube"]))
    if cluster.server != what["server"]:
        return
    with closing(Api(cluster)) as api:
        for seconds in _WAITS:
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
    """Whether a run is in it, or a pod that belongs to no run."""
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
