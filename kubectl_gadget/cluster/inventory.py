"""All objects of some kinds that were there at any time of a run, those too that are gone by its end.

The trap: a cluster may have ten thousand pods, so of each object only what `keep` makes of it is kept; and who may not
see all namespaces still gets those of one.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

from kubectl_gadget.cluster.api.requests import Api
from kubectl_gadget.cluster.api.resources import Object, Resource
from kubectl_gadget.cluster.api.watch import Changed, Scope, follow
from kubectl_gadget.errors import ClusterError, ForbiddenError

Keep = Callable[[Object], Any]


class InventoryWatch:
    """Follows the kinds in `keep`, of all namespaces when `everywhere`, and of `namespace` alone otherwise, or where
    that is forbidden. `warn` gets lines for the user."""

    def __init__(
        self,
        api: Api,
        keep: Mapping[Resource, Keep],
        namespace: str | None,
        warn: Callable[[str], None],
        everywhere: bool = True,
    ) -> None:
        self._everywhere = everywhere
        self._api = api
        self._keep = keep
        self._namespace = namespace
        self._warn = warn
        self._found: dict[Resource, dict[str, Any]] = {resource: {} for resource in keep}
        self._missing = set(keep)
        self._listed = asyncio.Event()

    def found(self, resource: Resource) -> list[Any]:
        """What was kept of all objects of this kind; those that came or changed last are at the end."""
        return list(self._found[resource].values())

    async def listed(self) -> None:
        """Waits until all is known that was there at the beginning, or cannot be known."""
        await self._listed.wait()

    async def watch(self) -> None:
        """Until cancelled. What may not be seen is said, and left out."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for resource in self._keep:
                    tasks.create_task(self._follow(resource), name=f"inventory of {resource.plural}")
        finally:
            self._listed.set()

    async def _follow(self, resource: Resource) -> None:
        for namespace in self._namespaces(resource):
            try:
                await self._follow_in(resource, namespace)
            except ForbiddenError:
                where = f" of namespace {namespace}" if namespace else " of all namespaces" * resource.namespaced
                self._warn(f"{resource.plural}{where} may not be listed, so they are not known by name")
            except ClusterError as error:
                self._warn(f"{resource.plural} cannot be followed: {error}")
                break
        self._has_listed(resource)

    def _namespaces(self, resource: Resource) -> list[str | None]:
        """One after the other, as long as it is forbidden."""
        if not resource.namespaced or self._namespace is None:
            return [None]
        return [None, self._namespace] if self._everywhere else [self._namespace]

    async def _follow_in(self, resource: Resource, namespace: str | None) -> None:
        async with aclosing(follow(self._api, Scope(resource, namespace))) as changes:
            async for change in changes:
                for item in [change.object] if isinstance(change, Changed) else change.items:
                    self._take(resource, item)
                self._has_listed(resource)

    def _take(self, resource: Resource, item: Object) -> None:
        found, uid = self._found[resource], item["metadata"]["uid"]
        found.pop(uid, None)
        found[uid] = self._keep[resource](item)

    def _has_listed(self, resource: Resource) -> None:
        self._missing.discard(resource)
        if not self._missing:
            self._listed.set()
