"""Follows objects as they are created, changed and deleted: one list, then a watch from there, without end.

The watch runs over a websocket, which the API server offers for every watch, so that cancelling it needs no thread.
After "410 Gone" the history is lost, so everything is listed again, and objects may have been deleted unseen; the
consumer gets a new Synced and must compare.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from kubectl_gadget.kube.failure import Access, StatusError, UnreachableError, from_status
from kubectl_gadget.kube.requests import Api, Listing, selectors
from kubectl_gadget.kube.resources import Object, Resource
from kubectl_gadget.kube.websocket import close_quietly, open_websocket

RETRY_SECONDS = (0.2, 1.0, 2.0, 5.0, 10.0)
_GONE = 410
_BUSY = 429


@dataclass(frozen=True)
class Synced:
    """All objects that exist now. Objects that existed before and are not listed were deleted."""

    items: list[Object]


@dataclass(frozen=True)
class Changed:
    """One object was created, changed or deleted."""

    object: Object
    deleted: bool


Change = Synced | Changed


@dataclass(frozen=True)
class WatchScope:
    """The objects to watch."""

    resource: Resource
    namespace: str | None = None
    labels: str | None = None
    fields: str | None = None


async def follow(api: Api, scope: WatchScope) -> AsyncGenerator[Change, None]:
    """Yields changes and never ends by itself. Raises ClusterError when the first list fails, later only for errors
    that retrying cannot cure.

    Close it (contextlib.aclosing) when leaving early.
    """
    listing = await _list(api, scope)
    while True:
        version = listing.resource_version
        yield Synced(listing.items)
        del listing  # or it would be in memory as long as the watch runs
        async with aclosing(_changes(api, scope, version)) as changes:
            async for change in changes:
                yield change
        listing = await _list_patiently(api, scope)


async def _list(api: Api, scope: WatchScope) -> Listing:
    return await api.find(scope.resource, scope.namespace, scope.labels, scope.fields, _lighter)


def _lighter(found: Object) -> Object:
    """Removes parts that no follower reads, which are half of a pod and most of a node."""
    found["metadata"].pop("managedFields", None)
    (found.get("status") or {}).pop("images", None)
    return found


async def _list_patiently(api: Api, scope: WatchScope) -> Listing:
    failures = 0
    while True:
        try:
            return await _list(api, scope)
        except StatusError as error:
            if error.code < 500 and error.code != _BUSY:  # from 500 on the server, or its storage, is starting
                raise
        except UnreachableError:
            pass
        failures += 1
        await _pause(failures)


async def _pause(failures: int) -> None:
    if failures:
        await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS)) - 1])


async def _changes(api: Api, scope: WatchScope, version: str) -> AsyncGenerator[Changed, None]:
    """Yields changes. Ends when the history is lost and everything must be listed again."""
    failures = 0
    while True:
        try:
            async with aclosing(_one_watch(api, scope, version)) as messages:
                failures += 1
                async for kind, found in messages:
                    failures = 0
                    version = found["metadata"]["resourceVersion"]
                    if kind != "BOOKMARK":
                        yield Changed(found, kind == "DELETED")
        except StatusError as error:
            if error.code == _GONE:
                return
            if error.code < 500 and error.code != _BUSY:
                raise
        except UnreachableError as error:
            if failures == 3:
                api.warn_once(f"{error}; retrying")
        await _pause(failures)


def _read(text: str | bytes, resource: Resource, api: Api) -> tuple[str, Object]:
    """Parses a message of a watch. Raises UnreachableError when it is invalid, as after any other broken connection."""
    try:
        message = json.loads(text)
        kind, found = str(message["type"]), message["object"]
        if kind != "ERROR":
            str(found["metadata"]["resourceVersion"])
        elif not isinstance(found, dict):
            raise TypeError
    except (ValueError, LookupError, TypeError, AttributeError):
        shown = repr(text[:80])
        why = f"the watch of {resource.plural} returned something that is not a watch event: {shown}"
        raise UnreachableError(f"{api.cluster.server}: {why}", "check whether a proxy is in between") from None
    return kind, found


async def _one_watch(api: Api, scope: WatchScope, version: str) -> AsyncGenerator[tuple[str, Object], None]:
    """Yields the messages of one connection, until it ends. Raises StatusError for an error that the server reports."""
    query = selectors(scope.labels, scope.fields)
    query += (("watch", "1"), ("allowWatchBookmarks", "true"), ("resourceVersion", version))
    access = Access("watch", scope.resource.qualified, scope.namespace)
    websocket = await open_websocket(api, scope.resource.path(scope.namespace), query, access, ClientConnection)
    try:
        while True:
            try:
                text = await websocket.recv()
            except ConnectionClosed:
                return
            kind, found = _read(text, scope.resource, api)
            if kind == "ERROR":
                code = int(found.get("code") or 500)
                raise from_status(code, json.dumps(found).encode(), api.cluster.server, access)
            yield kind, found
    finally:
        await close_quietly(websocket)
