"""Controllers and kubelets: pods start or fail, a DaemonSet gets its pods, deleted objects are removed.

Everything happens some iterations of the event loop later, as in a real cluster, so that clients must wait for it.
"""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

from tests.fake_cluster.faults import Faults
from tests.fake_cluster.store import Object, Store, now

_SOON = 0.01


class Kubelet:
    """All kubelets and controllers of the cluster."""

    def __init__(self, store: Store, faults: Faults) -> None:
        self._store = store
        self._faults = faults
        self._tasks: set[asyncio.Task[None]] = set()
        store.delete_namespace = lambda name: self.deleted("namespaces", "", name)

    async def close(self) -> None:
        """Cancels running tasks. Raises an error that occurred in one of them."""
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        # Not a task group: fixtures enter and leave the cluster in different tasks.
        self._tasks.add(asyncio.get_running_loop().create_task(work))

    def created(self, plural: str, found: Object) -> None:
        """Call this for each new object."""
        if plural == "pods":
            self._later(self._start_pod(found))
        elif plural == "daemonsets":
            self._later(self._start_daemon_set(found))
        elif plural == "jobs" and found["spec"].get("completions") == 0:
            self._later(self._expire(found))

    def deleted(self, plural: str, namespace: str, name: str) -> None:
        """Call this when a client deletes an object; removes it now or later."""
        if plural not in ("namespaces", "pods"):
            self._store.remove(plural, namespace, name)
            return

        def mark(found: Object) -> None:
            found["metadata"]["deletionTimestamp"] = now()
            if plural == "namespaces":
                found["status"] = {"phase": "Terminating"}

        self._store.change(plural, namespace, name, mark)
        self._later(self._remove(plural, namespace, name))

    async def _remove(self, plural: str, namespace: str, name: str) -> None:
        await asyncio.sleep(self._faults.slow_namespaces if plural == "namespaces" else _SOON)
        self._store.remove(plural, namespace, name)

    async def _expire(self, job: Object) -> None:
        """The TTL controller: a job without work is complete at once, and is removed some time after that."""
        complete = time.monotonic()
        key = ("jobs", job["metadata"]["namespace"], job["metadata"]["name"])
        while (found := self._store.get(*key)) and found["metadata"]["uid"] == job["metadata"]["uid"]:
            seconds = found["spec"].get("ttlSecondsAfterFinished")
            if seconds is not None and time.monotonic() - complete >= seconds:
                self._store.remove(*key)
                return
            await asyncio.sleep(_SOON)

    async def _start_pod(self, pod: Object) -> None:
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        node = pod["spec"].get("nodeName")
        if not node:
            return
        await asyncio.sleep(_SOON)
        if self._store.get("nodes", "", node) is None:
            return
        status: dict[str, Any] = {"phase": "Pending"}
        if node in self._faults.waiting:
            reason, message = self._faults.waiting[node]
            state: dict[str, Any] = {"waiting": {"reason": reason, "message": message}}
        elif node in self._faults.crash:
            code, message = self._faults.crash[node]
            state = {"terminated": {"exitCode": code, "reason": "Error", "message": message}}
            if pod["spec"].get("restartPolicy") != "Never":
                waiting = {"reason": "CrashLoopBackOff", "message": f"back-off restarting failed container in {name}"}
                state = {"waiting": waiting, "last": state}
        else:
            status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
            state = {"running": {"startedAt": now()}}
        last = state.pop("last", {})
        status["containerStatuses"] = [
            {
                "name": container["name"],
                "image": container["image"],
                "state": state,
                "lastState": last,
                "restartCount": 0,
                "ready": "running" in state,
            }
            for container in pod["spec"]["containers"]
        ]
        self._store.change("pods", namespace, name, lambda found: found.update(status=status))

    async def _start_daemon_set(self, daemon_set: Object) -> None:
        await asyncio.sleep(_SOON)
        namespace, name = daemon_set["metadata"]["namespace"], daemon_set["metadata"]["name"]
        template = daemon_set["spec"]["template"]
        nodes = self._store.list("nodes")
        self._store.change(
            "daemonsets",
            namespace,
            name,
            lambda found: found.update(status={"observedGeneration": 1, "desiredNumberScheduled": len(nodes)}),
        )
        if self._faults.pod_security:
            self._refuse(namespace, name)
            return
        for node in nodes:
            reference = {
                "apiVersion": "apps/v1",
                "kind": "DaemonSet",
                "name": name,
                "uid": daemon_set["metadata"]["uid"],
            }
            metadata = {
                "generateName": f"{name}-",
                "labels": template["metadata"]["labels"],
                "ownerReferences": [reference],
            }
            spec = template["spec"] | {"nodeName": node["metadata"]["name"]}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
            self.created("pods", self._store.add("pods", namespace, pod))

    def _refuse(self, namespace: str, name: str) -> None:
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{name}."},
            "type": "Warning",
            "reason": "FailedCreate",
            "message": f'Error creating: pods "{name}-" is forbidden: {POD_SECURITY}',
            "involvedObject": {"kind": "DaemonSet", "name": name, "namespace": namespace},
            "lastTimestamp": now(),
        }
        self._store.add("events", namespace, event)


POD_SECURITY = 'violates PodSecurity "restricted:latest": host namespaces (hostPID=true), hostPath volumes'
