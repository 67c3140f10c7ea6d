"""What a cluster knows of pods besides their names, for JSON of events: labels, and what they are replicas of.

The trap: who may trace pods may still not be allowed to list them in all namespaces; then events lack it, which is said
once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from kubectl_gadget.advise.inventory import Pod
from kubectl_gadget.cluster.api import objects
from kubectl_gadget.cluster.api.objects import Objects
from kubectl_gadget.cluster.api.resources import PODS, Object, Resource
from kubectl_gadget.cluster.options import KubeOptions
from kubectl_gadget.cluster.selection.pod_identity import PodValues
from kubectl_gadget.errors import GadgetError
from kubectl_gadget.events.identity import Container

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


@contextmanager
def following(kube: KubeOptions, details: PodDetails, stderr: TextIO, quiet: bool) -> Iterator[None]:
    """Keeps them up to date inside the block."""
    said: list[str] = []

    def say(text: str) -> None:
        if not quiet:
            print(text, file=stderr, flush=True)

    def failed(kind: Resource | None, error: GadgetError) -> None:
        if not said:
            said.append(str(error))
            say(f"warning: events have no labels and workloads of pods: {error}")

    limits = {"first_seconds": _FIRST_SECONDS, "keep_seconds": _KEEP_SECONDS}
    with objects.following(kube, (PODS,), details.take, failed, say, **limits):
        yield
