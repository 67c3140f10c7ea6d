"""The objects of the fake cluster: versions, selectors, watches, owners.

A watch must lose nothing between its version and now, so every change is kept as long as the cluster exists.
"""

import asyncio
import copy
import itertools
import uuid
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime
from typing import Any

from kubectl_gadget.kube import selectors

Object = dict[str, Any]
Key = tuple[str, str, str]
"""plural, namespace ("" if there is none), name"""


_OWNER_FIELDS = ("apiVersion", "kind", "name", "uid")


class InvalidObject(ValueError):
    """The real API server answers this with 422; the text is the server's."""


class Store:
    """All objects, with one order of changes."""

    def __init__(self) -> None:
        self.objects: dict[Key, Object] = {}
        self.logs: dict[tuple[str, str, str, bool], str] = {}
        """by namespace, pod, container, and whether it is that of the run before a running one"""
        self.version = 100
        self._log: list[tuple[int, str, str, str, Object]] = []
        self._news = asyncio.Event()
        self._names = itertools.count(1)
        self.delete_namespace: Callable[[str], None] = lambda name: self.remove("namespaces", "", name)
        """called for a namespace whose owner is gone"""

    def get(self, plural: str, namespace: str, name: str) -> Object | None:
        return self.objects.get((plural, namespace, name))

    def list(self, plural: str, namespace: str | None = None) -> list[Object]:
        """All objects of one kind; `namespace` None means all namespaces."""
        return [
            found
            for key, found in self.objects.items()
            if key[0] == plural and (namespace is None or key[1] == namespace)
        ]

    def add(self, plural: str, namespace: str, found: Object) -> Object:
        """Adds an object and fills in what the server fills in. Raises KeyError if it exists, InvalidObject if it is
        invalid."""
        found = copy.deepcopy(found)
        metadata = found.setdefault("metadata", {})
        check_owners(metadata)
        if "name" not in metadata:
            metadata["name"] = f"{metadata['generateName']}{next(self._names):05d}"
        if namespace:
            metadata["namespace"] = namespace
        key = (plural, namespace, metadata["name"])
        if key in self.objects:
            raise KeyError(metadata["name"])
        metadata.setdefault("uid", str(uuid.uuid4()))
        metadata["creationTimestamp"] = now()
        metadata["generation"] = 1
        self.objects[key] = found
        self._tell("ADDED", plural, namespace, found)
        return found

    def change(self, plural: str, namespace: str, name: str, change: Callable[[Object], None]) -> Object | None:
        """Lets `change` edit the object, if it still exists. Raises InvalidObject, in which case nothing is changed."""
        found = self.get(plural, namespace, name)
        if found is None:
            return None
        changed = copy.deepcopy(found)
        change(changed)
        check_owners(changed["metadata"])
        self.objects[plural, namespace, name] = changed
        self._tell("MODIFIED", plural, namespace, changed)
        return changed

    def remove(self, plural: str, namespace: str, name: str) -> None:
        """Removes the object and the objects that it owns; for a namespace also the objects in it."""
        found = self.objects.pop((plural, namespace, name), None)
        if found is None:
            return
        self._tell("DELETED", plural, namespace, found)
        if plural == "services":  # the API server removes a service's addresses with it
            for address in self.list("ipaddresses"):
                if address["spec"]["parentRef"] == {"resource": "services", "namespace": namespace, "name": name}:
                    self.remove("ipaddresses", "", address["metadata"]["name"])
        uid = found["metadata"]["uid"]
        left = {other["metadata"]["uid"] for other in self.objects.values()}
        for key, other in list(self.objects.items()):
            owners = {owner["uid"] for owner in other["metadata"].get("ownerReferences") or []}
            # Like the garbage collector: an object is removed with the last of its owners.
            orphaned = uid in owners and left.isdisjoint(owners)
            if orphaned and key[0] == "namespaces":
                self.delete_namespace(key[2])
            elif orphaned or (plural == "namespaces" and key[1] == name):
                self.remove(*key)

    async def follow(
        self, plural: str, namespace: str | None, version: int, accepts: Callable[[Object], bool]
    ) -> AsyncGenerator[tuple[str, Object], None]:
        """Yields changes after `version` as watch messages. Never ends."""
        position = 0
        known: set[str] = set()
        while True:
            if len(self._log) <= position:
                await self._news.wait()
            for number, kind, changed, where, found in self._log[position:]:
                position += 1
                if changed != plural or (namespace is not None and where != namespace):
                    continue
                uid = found["metadata"]["uid"]
                seen_as = kind if accepts(found) else "DELETED"
                if seen_as == "DELETED" and uid not in known:
                    continue
                (known.discard if seen_as == "DELETED" else known.add)(uid)
                if number > version:
                    yield seen_as, found

    def _tell(self, kind: str, plural: str, namespace: str, found: Object) -> None:
        self.version += 1
        found["metadata"]["resourceVersion"] = str(self.version)
        self._log.append((self.version, kind, plural, namespace, copy.deepcopy(found)))
        self._news.set()
        self._news = asyncio.Event()


def check_owners(metadata: Object) -> None:
    """Raises InvalidObject for an owner reference with missing members."""
    for number, owner in enumerate(metadata.get("ownerReferences") or []):
        for field in _OWNER_FIELDS:
            if not owner.get(field):
                where = f"metadata.ownerReferences[{number}].{field}"
                raise InvalidObject(f"{where}: Required value: {field} must not be empty")


def matcher(labels: str, fields: str) -> Callable[[Object], bool]:
    """A function that tests whether an object matches a label selector and a field selector."""
    selector = selectors.parse(labels)
    pairs = [part.split("=", 1) for part in fields.replace("==", "=").split(",") if part]

    def accepts(found: Object) -> bool:
        if not selector.accepts(found["metadata"].get("labels") or {}):
            return False
        return all(_field(found, path) == value for path, value in pairs)

    return accepts


def _field(found: Object, path: str) -> str:
    value: Any = found
    for part in path.split("."):
        value = value.get(part, "") if isinstance(value, dict) else ""
    return str(value)


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
