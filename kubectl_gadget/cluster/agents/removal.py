"""Removes what one run made in a cluster: its anchor Job, with it its pods, and the namespace if no other run uses it.

A run uses the namespace as long as its anchor job is there, which it makes before its pods and which is deleted before
they are: of two runs that end at once, the one that looks last finds no job. The trap: between a look and a deletion
somebody may `deploy`; that changes the namespace, so what is deleted is the namespace as it was when we looked.
"""

import asyncio
import json
from contextlib import aclosing, closing

from kubectl_gadget.cluster.agents import manifests
from kubectl_gadget.cluster.api import kubeconfig
from kubectl_gadget.cluster.api.requests import Api
from kubectl_gadget.cluster.api.resources import JOBS, NAMESPACES, PODS, Object
from kubectl_gadget.cluster.api.watch import Scope, Synced, follow
from kubectl_gadget.cluster.options import KubeOptions
from kubectl_gadget.errors import ClusterError, ForbiddenError

_SECONDS = 10.0
_LOOKS = 5
_WAITS = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)
"""Seconds before each try of a run whose client is gone: an API server that restarts is back by then."""


async def remove_as_ordered(order: bytes) -> None:
    """Removes what the order of a reaper says, if the kubeconfig still leads to the same server, and tries again where
    that does not work. Raises ClusterError, UsageError."""
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
    """Removes all that `run` has made; returns the names of what may remain. Never raises ClusterError."""
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
    """Deletes the namespace if a run made it and none uses it. Whether it is deleted, or being deleted."""
    for _ in range(_LOOKS):
        try:
            found = await api.get(NAMESPACES, name)
        except ForbiddenError:
            return False  # who may not see it did not make it
        if found is None:
            return True
        metadata = found["metadata"]
        if manifests.ON_DEMAND_ANNOTATION not in (metadata.get("annotations") or {}) or await _is_used(api, name):
            return False
        if await api.delete(NAMESPACES, name, uid=metadata["uid"], version=metadata["resourceVersion"]):
            return True
    return False


async def _is_used(api: Api, namespace: str) -> bool:
    """Whether a run, or a pod that is no run's, is in it."""
    pods = (await api.find(PODS, namespace)).items
    if any(manifests.RUN_LABEL not in (pod["metadata"].get("labels") or {}) for pod in pods):
        return True
    return bool((await api.find(JOBS, namespace)).items)


async def _until_deleted(api: Api, namespace: str, run: str) -> list[str]:
    """Waits until the cluster has begun to delete every pod of this run."""
    remaining: dict[str, Object] = {}
    scope = Scope(PODS, namespace, labels=f"{manifests.RUN_LABEL}={run}")
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
