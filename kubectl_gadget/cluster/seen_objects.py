"""All objects of some resources that existed at any time during a run, including deleted ones.

The trap: a cluster may have ten thousand pods, so of each object only the result of `keep` is stored.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from kubectl_gadget.cluster.api.resources import Object, Resource
from kubectl_gadget.cluster.api.watch import Change, Synced
from kubectl_gadget.cluster.informer import Informer, Subscription

Keep = Callable[[Object], Any]


class SeenObjects:
    """Objects of the resources in `keep`, in all namespaces or in `namespace`."""

    def __init__(self, keep: Mapping[Resource, Keep], namespace: str | None, missing: str) -> None:
        """`missing` as in Subscription."""
        self._keep = keep
        self._namespace = namespace
        self._missing = missing
        self._found: dict[Resource, dict[str, Any]] = {resource: {} for resource in keep}

    @property
    def kinds(self) -> tuple[Resource, ...]:
        """The resources."""
        return tuple(self._keep)

    def subscribe(self, informer: Informer) -> None:
        """The run waits until all objects that exist at its start are known, or cannot be known."""
        for resource in self._keep:
            informer.subscribe(self._subscription(informer, resource))

    def found(self, resource: Resource) -> list[Any]:
        """Returns what was kept of each object of this resource; the latest additions and changes are at the end."""
        return list(self._found[resource].values())

    def _subscription(self, informer: Informer, resource: Resource) -> Subscription:
        listed = asyncio.Event()
        informer.wait_for(listed)

        def take(change: Change) -> None:
            found, keep = self._found[resource], self._keep[resource]
            for item in change.items if isinstance(change, Synced) else [change.object]:
                uid = item["metadata"]["uid"]
                found.pop(uid, None)
                found[uid] = keep(item)
            listed.set()

        return Subscription(resource, take, self._namespace, missing=self._missing, ended=listed.set)
