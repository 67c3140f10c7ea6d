"""Which pod of the API a container belongs to: the one answer for selectors, policies, labels and workloads.

The trap: a static pod's containers have the kubelet's UID, not the API's. Only an annotation of its mirror pod has that
UID, and whoever may create a pod may write any annotation, owner and node into it: NodeRestriction limits kubelets, not
users. So `metadata.uid`, which the API server assigns, always wins; a mirror pod is found by NAMESPACE/NAME, which the
kubelet gives its containers and no two pods share; and the annotation counts only where a container has no names.
"""

from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, TypeVar

Value = TypeVar("Value")
Object = Mapping[str, Any]

_HASH = "kubernetes.io/config.hash"
_MIRROR = "kubernetes.io/config.mirror"


def mirror_hash(pod: Object) -> str:
    """The UID that the containers of a mirror pod have; "" for every other pod.

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
    """NAMESPACE/NAME."""
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def container_key(pod: Object) -> str:
    """What an agent finds the pod's containers by: the UID that the API server assigned, or for a mirror pod, whose
    containers have another UID, NAMESPACE/NAME."""
    return full_name(pod) if mirror_hash(pod) else str(pod["metadata"]["uid"])


class _Known(NamedTuple):
    name: str
    hash: str

    def is_found_by_name(self, uid: str) -> bool:
        """A static pod, or one of a file of objects, which has its name in the place of a UID."""
        return bool(self.hash) or uid == self.name


class PodValues(Generic[Value]):
    """One value for each pod, found by what a container says of its pod. One thread may change it, others read it."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        """by `metadata.uid`"""
        self._values: dict[str, Value] = {}
        """the same"""
        self._by_name: dict[str, str] = {}
        """the `metadata.uid` of the last pod of that name"""
        self._claims: dict[str, dict[str, str]] = {}
        """of mirror pods: by hash, then by NAMESPACE/NAME, the `metadata.uid`"""

    def put(self, pod: Object, value: Value) -> None:
        """The pod as it is now."""
        uid = pod["metadata"]["uid"]
        self.forget(uid)
        known = self._known[uid] = _Known(full_name(pod), mirror_hash(pod))
        self._values[uid] = value
        self._by_name[known.name] = uid
        if known.hash:
            self._claims.setdefault(known.hash, {})[known.name] = uid

    def change(self, uid: str, value: Value) -> None:
        """Another value for a pod that is known."""
        if uid in self._known:
            self._values[uid] = value

    def forget(self, uid: str) -> None:
        """The pod with this `metadata.uid` is gone. Another one may have its name by now."""
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
        """The value for the pod of a container with this pod UID and NAMESPACE/NAME, each "" when unknown. None: the
        pod is not known.

        Where the container has a UID, a name alone decides for static pods only: a pod that replaces another has its
        name, too.
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
