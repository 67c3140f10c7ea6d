"""All objects of some resources that existed at any time of a run, also those that are gone by its end.

The trap: a cluster may have ten thousand pods, so of each object only what `keep` makes of it is stored.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from kubectl_gadget.cluster.api.resources import Object, Resource
from kubectl_gadget.cluster.api.watch import Change, Synced
from kubectl_gadget.cluster.informer import Informer, Subscription

Keep = Callable[[Object], Any]


class SeenObjects:
    """Of the resources in `keep`, in all namespaces or in `namespace`."""

    def __init__(self, keep: Mapping[Resource, Keep], namespace: str | None, missing: str) -> None:
        """`missing` as in Subscription."""
        self._keep = keep
        self._namespace = namespace
        self._missing = missing
        self._found: dict[Resource, dict[str, Any]] = {resource: {} for resource in keep}

    def subscribe(self, informer: Informer) -> None:
        """The run waits until all is known that exists at its beginning, or cannot be known."""
        for resource in self._keep:
            informer.subscribe(self._subscription(informer, resource))

    def found(self, resource: Resource) -> list[Any]:
        """What was kept of each object of this resource; those that came or changed last are at the end."""
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
