"""What a cluster knows of pods besides their names, for JSON of events: labels, and what they are replicas of.

The trap: a user who may trace pods may not be allowed to list them in all namespaces. Events of others then lack it.
"""

from typing import Any

from kubectl_gadget.cluster.api.resources import PODS, Object
from kubectl_gadget.cluster.informer import Follower, Objects
from kubectl_gadget.events.identity import Container
from kubectl_gadget.kube.inventory import Pod
from kubectl_gadget.kube.pod_identity import PodValues

_FIRST_SECONDS = 20.0
_KEEP_SECONDS = 600.0
"""Pods that are gone are known for a while, since what they did comes later."""


class PodDetails:
    """By what containers say of their pods."""

    def __init__(self) -> None:
        self._known = PodValues[Object]()

    def take(self, found: Objects) -> None:
        """The pods as they are now. From any thread."""
        known = PodValues[Object]()
        for pod in found.get(PODS, ()):
            known.put(pod, _details(pod))
        self._known = known

    def of(self, container: Container) -> dict[str, Any]:
        """pod_labels, workload and workload_kind of its pod; nothing when the pod is not known."""
        return self._known.of(container.pod_uid, container.pod_name) or {}


def _details(found: Object) -> Object:
    pod = Pod.from_object(found)
    workload = pod.workload
    return {"pod_labels": pod.labels, "workload": workload.name, "workload_kind": workload.kind}


def followed(details: PodDetails) -> Follower:
    """Keeps them up to date while a run goes on."""
    return Follower(
        (PODS,),
        details.take,
        _FIRST_SECONDS,
        _KEEP_SECONDS,
        missing="some events have no labels and workloads of pods",
        unchanged="labels and workloads of pods stay as they were",
    )
