"""All objects of the cluster that existed at any time during a run or a recording, including deleted ones.

A cluster may have ten thousand pods and changes all the time, so of each object only what an Inventory has is kept, and
only objects that have changed are read again.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kubectl_gadget.kube.informer import Follower, Objects
from kubectl_gadget.kube.inventory import SLICE_OF, Inventory, Node, Pod, Service
from kubectl_gadget.kube.resources import ENDPOINT_SLICES, NAMESPACES, NODES, PODS, SERVICES, Object, Resource

WITH_ADDRESSES = (PODS, SERVICES, ENDPOINT_SLICES, NODES)
_FIRST_SECONDS, _KEEP_SECONDS = 20.0, 600.0
_READERS: Mapping[Resource, Callable[[Object], Any]] = {
    PODS: Pod.from_object,
    NODES: Node.from_object,
    NAMESPACES: lambda item: (item["metadata"]["name"], dict(item["metadata"].get("labels") or {})),
}


class SeenInventory:
    """Objects of `kinds`, in all namespaces or in `namespace`."""

    def __init__(self, kinds: Sequence[Resource] = WITH_ADDRESSES, namespace: str | None = None) -> None:
        self._kinds = tuple(kinds)
        self._namespace = namespace
        self._present: dict[Resource, dict[str, Object]] = {kind: {} for kind in _READERS}
        self._seen: dict[Resource, dict[str, Any]] = {kind: {} for kind in _READERS}
        self._services: dict[str, Service] = {}
        self._made: Inventory | None = None

    def follower(self, missing: str) -> Follower:
        """Follows them during a run; `missing` as in Follower."""
        return Follower(
            self._kinds, self._take, _FIRST_SECONDS, _KEEP_SECONDS, missing=missing, namespace=self._namespace
        )

    def inventory(self) -> Inventory:
        """All of them; of several with one name, the last counts. The same object until something changes."""
        if self._made is None:
            pods, nodes, namespaces = (list(self._seen[kind].values()) for kind in (PODS, NODES, NAMESPACES))
            self._made = Inventory(pods, list(self._services.values()), nodes, dict(namespaces))
        return self._made

    def _take(self, found: Objects) -> Callable[[], object]:
        wanted = {kind: self._wanted(found.get(kind, ())) for kind in self._kinds}
        new = {
            kind: {
                uid: read(item)
                for uid, item in wanted.get(kind, {}).items()
                if self._present[kind].get(uid) is not item
            }
            for kind, read in _READERS.items()
        }
        services = {}
        if SERVICES in wanted:
            slices = slices_of(wanted.get(ENDPOINT_SLICES, {}).values())
            services = {uid: service_of(item, slices) for uid, item in wanted[SERVICES].items()}

        def commit() -> None:
            for kind, read in new.items():
                self._present[kind] = wanted.get(kind, {})
                self._seen[kind].update(read)
            self._services.update(services)
            self._made = None

        return commit

    def _wanted(self, items: Sequence[Object]) -> dict[str, Object]:
        return {
            item["metadata"]["uid"]: item
            for item in items
            if self._namespace is None or item["metadata"].get("namespace", self._namespace) == self._namespace
        }


Slices = Mapping[tuple[str, str], Sequence[Object]]
"""EndpointSlices by the namespace and name of their service."""


def slices_of(items: Any) -> Slices:
    """Arranges EndpointSlices."""
    found: dict[tuple[str, str], list[Object]] = {}
    for item in items:
        metadata = item["metadata"]
        service = (metadata.get("labels") or {}).get(SLICE_OF, "")
        found.setdefault((metadata["namespace"], service), []).append(item)
    return found


def service_of(item: Object, slices: Slices) -> Service:
    """Reads a service of the API, with its slices."""
    return Service.from_object(item, slices.get((item["metadata"]["namespace"], item["metadata"]["name"]), ()))
