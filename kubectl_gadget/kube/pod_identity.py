"""Finds the API's pod that a container belongs to: the one answer for selectors, policies, labels and workloads.

The trap: a static pod's containers have the kubelet's UID, not the API's. Only an annotation of its mirror pod has that
UID, and anyone who may create a pod may write any annotation, owner and node into it: NodeRestriction limits kubelets,
not users. So `metadata.uid`, which the API server assigns, always wins; a mirror pod is found by NAMESPACE/NAME, which
the kubelet gives its containers and no two pods share; and the annotation counts only where a container has no names.
"""

from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, TypeVar

Value = TypeVar("Value")
Object = Mapping[str, Any]

_HASH = "kubernetes.io/config.hash"
_MIRROR = "kubernetes.io/config.mirror"


def mirror_hash(pod: Object) -> str:
    """Returns the UID that the containers of a mirror pod have, or "" for every other pod.

    The kubelet writes the hash into both annotations and makes the node the controller of the pod
    (k8s.io/kubernetes, pkg/kubelet/pod/mirror_client.go). A pod for which one of these differs is not a mirror pod.
    """
    metadata, node = pod["metadata"], (pod.get("spec") or {}).get("nodeName")
    annotations = metadata.get("annotations") or {}
    hash = annotations.get(_HASH)
    if not node or not hash or annotations.get(_MIRROR) != hash:
        return ""
    owners = metadata.get("ownerReferences") or ()
    by_node = (
        owner.get("kind") == "Node"
        and owner.get("apiVersion") == "v1"
        and owner.get("name") == node
        and owner.get("controller") is True
        for owner in owners
    )
    return str(hash) if any(by_node) else ""


def full_name(pod: Object) -> str:
    """Returns NAMESPACE/NAME."""
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def container_key(pod: Object) -> str:
    """Returns the key by which an agent finds the pod's containers: the UID that the API server assigned, or
    NAMESPACE/NAME for a mirror pod, whose containers have another UID."""
    return full_name(pod) if mirror_hash(pod) else str(pod["metadata"]["uid"])


class _Known(NamedTuple):
    name: str
    hash: str

    def is_found_by_name(self, uid: str) -> bool:
        """Whether the pod is a static pod, or comes from a file of objects, where its name takes the place of a UID."""
        return bool(self.hash) or uid == self.name


class PodValues(Generic[Value]):
    """One value per pod, looked up by what a container reports. One thread may change it while others read."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        """by `metadata.uid`"""
        self._values: dict[str, Value] = {}
        """by `metadata.uid`"""
        self._by_name: dict[str, str] = {}
        """the `metadata.uid` of the last pod of that name"""
        self._claims: dict[str, dict[str, str]] = {}
        """`metadata.uid` of mirror pods: by hash, then by NAMESPACE/NAME"""

    def put(self, pod: Object, value: Value) -> None:
        """Sets the value for a pod in its present state."""
        uid = pod["metadata"]["uid"]
        self.forget(uid)
        known = self._known[uid] = _Known(full_name(pod), mirror_hash(pod))
        self._values[uid] = value
        self._by_name[known.name] = uid
        if known.hash:
            self._claims.setdefault(known.hash, {})[known.name] = uid

    def change(self, uid: str, value: Value) -> None:
        """Replaces the value of a known pod."""
        if uid in self._known:
            self._values[uid] = value

    def forget(self, uid: str) -> None:
        """Removes the pod with this `metadata.uid`. Another pod may already have its name."""
        known = self._known.pop(uid, None)
        if known is None:
            return
        del self._values[uid]
        if self._by_name.get(known.name) == uid:
            del self._by_name[known.name]
        claims = self._claims.get(known.hash, {})
        if claims.get(known.name) == uid:
            del claims[known.name]
            if not claims:
                del self._claims[known.hash]

    def of(self, uid: str, name: str) -> Value | None:
        """Returns the value for the pod of a container with this pod UID and NAMESPACE/NAME; each is "" when unknown.
        Returns None when the pod is not known.

        When the container has a UID, the name alone is enough for static pods only: a pod that replaces another one may
        have the same name.
        """
        found = uid if uid in self._known else self._named(name) if not uid or name else self._claimed(uid)
        if found is None or (uid and found != uid and not self._known[found].is_found_by_name(found)):
            return None
        return self._values[found]

    def _named(self, name: str) -> str | None:
        return self._by_name.get(name)

    def _claimed(self, hash: str) -> str | None:
        claims = self._claims.get(hash, {})
        return next(iter(claims.values())) if len(claims) == 1 else None
