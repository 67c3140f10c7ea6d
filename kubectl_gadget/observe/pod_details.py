"""The cluster's data about pods beyond their names, for JSON of events: labels and workloads.

A user who may trace pods may not be allowed to list pods in all namespaces. Events of other pods lack these.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from kubectl_gadget.kube.informer import Follower, Objects
from kubectl_gadget.kube.inventory import Pod, PodValues
from kubectl_gadget.kube.resources import PODS, Object
from kubectl_gadget.rows.containers import Container

_FIRST_SECONDS = 20.0
_KEEP_SECONDS = 600.0
"""Deleted pods are kept for a while, because their events may arrive later."""


class PodDetails:
    """Details of pods, looked up by what containers report about their pods."""

    def __init__(self) -> None:
        self._known = PodValues[Object]()

    def take(self, found: Objects) -> None:
        """Replaces the pods by their present state. May be called from any thread."""
        self.prepare(found)()

    def prepare(self, found: Objects) -> Callable[[], object]:
        """Like `take`, but returns what makes the state visible."""
        known = PodValues[Object]()
        for pod in found.get(PODS, ()):
            known.put(pod, _details(pod))
        return partial(setattr, self, "_known", known)

    def of(self, container: Container) -> dict[str, Any]:
        """Returns pod_labels, workload and workload_kind of the container's pod; nothing when the pod is not known."""
        return self._known.of(container.pod_uid, container.pod_name) or {}


def _details(found: Object) -> Object:
    pod = Pod.from_object(found)
    workload = pod.workload
    return {"pod_labels": pod.labels, "workload": workload.name, "workload_kind": workload.kind}


def followed(details: PodDetails) -> Follower:
    """Keeps the details up to date during a run."""
    return Follower(
        (PODS,),
        details.prepare,
        _FIRST_SECONDS,
        _KEEP_SECONDS,
        missing="some events lack labels and workloads of their pods",
        unchanged="labels and workloads of pods are not updated",
    )
