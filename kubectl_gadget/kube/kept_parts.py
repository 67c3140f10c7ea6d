"""The parts of the API's objects that anything here reads: for memory during a run, and for recordings.

A pod has some 5 KB, of which these are a tenth. The trap: whatever kube/inventory.py, kube/pod_identity.py or a view
begins to read must be added here, or it reads nothing. Environment variables, commands and secrets never are.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Object = dict[str, Any]

_METADATA = ("name", "namespace", "uid", "creationTimestamp", "labels")
_ANNOTATIONS = ("kubernetes.io/config.hash", "kubernetes.io/config.mirror")
"""those by which a static pod is known"""


def kept(kind: str, found: Object) -> Object:
    """Returns the kept parts of an object. Kinds without a rule keep everything except `managedFields`."""
    keep = _KEEP.get(kind)
    if keep is not None:
        return {"metadata": _some(found["metadata"], _METADATA), **keep(found)}
    found["metadata"].pop("managedFields", None)
    return found


def _pod(found: Object) -> Object:
    metadata, spec = found["metadata"], found.get("spec") or {}
    own = _some(metadata, _METADATA)
    if annotations := _some(metadata.get("annotations") or {}, _ANNOTATIONS):
        own["annotations"] = annotations
    owners = metadata.get("ownerReferences") or ()
    if owner := next((item for item in owners if item.get("controller")), None):
        own["ownerReferences"] = [_some(owner, ("apiVersion", "kind", "name", "controller"))]
    slim = _some(spec, ("nodeName", "hostNetwork"))
    for name in ("initContainers", "containers"):
        if spec.get(name):
            slim[name] = [_container(item) for item in spec[name]]
    if volumes := spec.get("volumes"):
        slim["volumes"] = [{name: item["name"] if name == "name" else {} for name in item} for item in volumes]
    status = found.get("status") or {}
    kept_status = _some(status, ("podIP", "podIPs", "phase"))
    for name in ("initContainerStatuses", "containerStatuses"):
        if containers := status.get(name):
            kept_status[name] = [_container_status(item) for item in containers]
    return {"metadata": own, "spec": slim, "status": kept_status}


def _container_status(found: Object) -> Object:
    slim = _some(found, ("name", "restartCount"))
    for name in ("state", "lastState"):
        if end := (found.get(name) or {}).get("terminated"):
            slim[name] = {"terminated": _some(end, ("exitCode", "reason", "finishedAt", "containerID"))}
    return slim


def _container(found: Object) -> Object:
    slim = {"name": found["name"]}
    if ports := found.get("ports"):
        slim["ports"] = [_some(port, ("name", "protocol", "containerPort", "hostPort")) for port in ports]
    if mounts := found.get("volumeMounts"):
        slim["volumeMounts"] = [_some(mount, ("name", "mountPath", "readOnly")) for mount in mounts]
    return slim


def _service(found: Object) -> Object:
    spec = _some(found.get("spec") or {}, ("clusterIP", "clusterIPs", "externalIPs", "ports", "selector"))
    return {"spec": spec, "status": _some(found.get("status") or {}, ("loadBalancer",))}


def _slice(found: Object) -> Object:
    endpoints = [_some(item, ("addresses",)) for item in found.get("endpoints") or ()]
    return {"endpoints": endpoints, "ports": found.get("ports") or []}


def _node(found: Object) -> Object:
    return {
        "spec": _some(found.get("spec") or {}, ("podCIDR", "podCIDRs")),
        "status": _some(found.get("status") or {}, ("addresses",)),
    }


_KEEP: Mapping[str, Callable[[Object], Object]] = {
    "Pod": _pod,
    "Service": _service,
    "EndpointSlice": _slice,
    "Node": _node,
    "Namespace": lambda found: {},
}


def _some(found: Mapping[str, Any], names: Sequence[str]) -> Object:
    return {name: found[name] for name in names if found.get(name)}
