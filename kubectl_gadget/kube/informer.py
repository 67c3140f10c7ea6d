"""The cluster objects that a run needs: one list and one watch of each resource, for any number of subscribers.

All of it runs in the run's event loop, with the run's connection and credentials. Refusals of the API server are
handled only here: where access to all namespaces is forbidden, it watches the run's own, and reports once what is
missing. A cluster may have 100,000 pods. So raw objects are kept only where a follower needs them, and a subscriber of
one namespace that waits too long for the list of all namespaces gets a list of its own.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from kubectl_gadget.background_tasks import Tasks, as_gadget_error
from kubectl_gadget.errors import ClusterError, ForbiddenError, GadgetError, InternalError
from kubectl_gadget.kube.connection import in_thread
from kubectl_gadget.kube.failure import Access, StatusError, UnreachableError, from_status
from kubectl_gadget.kube.requests import Api, Listing, selectors
from kubectl_gadget.kube.resources import GONE, Object, Resource
from kubectl_gadget.kube.websocket import close_quietly, open_websocket

# Follows objects as they are created, changed and deleted: one list, then a watch from there, without end.
#
# The watch runs over a websocket, which the API server offers for every watch, so that cancelling it needs no thread.
# After "410 Gone" the history is lost, so everything is listed again, and objects may have been deleted unseen; the
# consumer gets a new Synced and must compare.

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


# One informer for each resource, whatever number of followers it has.

Objects = Mapping[Resource, list[Object]]
_SETTLE_SECONDS = 0.1
"""Changes and errors within this time are passed on together."""
WIDE_SECONDS = 5.0
"""Seconds for which a subscriber of one namespace waits for the list of all namespaces."""


@dataclass(eq=False)
class Subscription:
    """Passes each change of one resource to one subscriber. `take` runs in the event loop and must be quick."""

    resource: Resource
    take: Callable[[Change], object]
    namespace: str | None = None
    """None: all"""
    failed: Callable[[GadgetError], object] | None = None
    """called with the error that ends the changes; None: the run can go on, and the error is reported"""
    missing: str = ""
    """what the user then misses, for the report: "some addresses have no names" """
    ended: Callable[[], object] = lambda: None
    """called when no more changes can come, if the run goes on"""
    narrowed: Callable[[Resource], object] = lambda resource: None
    """as in Follower"""
    aside: bool = False
    """nobody waits for it, so it must not delay subscribers of one namespace"""


@dataclass(frozen=True)
class Follower:
    """Needs all objects of some resources, in all namespaces or in one, in their present state.

    `take` receives them after each change, with the parts that kube/informer.py keeps. It runs in a thread, so it may
    be slow. It returns what makes the result visible, which is called then, or by a recording at the beginning of a
    step. An error that it raises ends the run if nothing was taken before; otherwise it is reported, after the text
    `unchanged`.
    """

    resources: Sequence[Resource]
    take: Callable[[Objects], Callable[[], object] | None]
    first_seconds: float
    """how long the run waits for the first lists, in seconds"""
    keep_seconds: float = 0.0
    """how long a deleted object is still passed on: events about it may arrive later"""
    required: frozenset[Resource] = frozenset()
    """resources whose errors end the run"""
    missing: str = ""
    """for the other resources, as in Subscription"""
    unchanged: str = "the last change has no effect"
    listed: Callable[[], object] = lambda: None
    """called once, after the first lists were taken"""
    namespace: str | None = None
    """the only one whose objects are needed; None: all. A recorded run passes objects of all"""
    narrowed: Callable[[Resource], object] = lambda resource: None
    """called when objects of all namespaces may not be listed; `take` gets the run's namespace's objects, or none"""

    @property
    def is_aside(self) -> bool:
        """The run does not wait for it, and it may not delay others."""
        return self.first_seconds == 0 and self.namespace is None


class Informer:
    """Call `subscribe` and `follow` first, then `start`, then await `known`."""

    def __init__(self, api: Api, tasks: Tasks, warn: Callable[[str], object], namespace: str | None = None) -> None:
        """`namespace` is the run's own, used where access to all namespaces is forbidden."""
        self._api = api
        self._tasks = tasks
        self._warn = warn
        self._namespace = namespace
        self._subscriptions: dict[Resource, list[Subscription]] = {}
        self._stores: dict[tuple[Resource, str | None], _Store] = {}
        self._follows: list[_Follows] = []
        self._started = False
        self._failures: list[tuple[Resource, GadgetError, str]] = []
        self._fatal: set[str] = set()

    def subscribe(self, subscription: Subscription) -> None:
        """Adds a subscription. Call it before `start`."""
        assert not self._started
        self._subscriptions.setdefault(subscription.resource, []).append(subscription)

    def follow(self, follower: Follower) -> None:
        """Adds a follower. Call it before `start`."""
        stores = {resource: self._store(resource, follower) for resource in follower.resources}
        follows = _Follows(follower, stores, self._tasks, self._warn)
        self._follows.append(follows)
        for resource in follower.resources:
            self.subscribe(follows.subscription(resource))

    def start(self) -> None:
        """Starts all lists, and a watch after each."""
        self._started = True
        for resource, subscriptions in self._subscriptions.items():
            aside = [one for one in subscriptions if one.aside]
            waiting = [one for one in subscriptions if not one.aside]
            if resource.namespaced and aside and waiting and all(one.namespace for one in waiting):
                self._start(resource, None, aside)
                self._start(resource, "", waiting)
                continue
            wide = [one for one in subscriptions if one.namespace is None or not resource.namespaced]
            self._start(resource, None if wide else "", subscriptions)
        for follows in self._follows:
            self._tasks.start(follows.run(), "changes of the cluster's objects")

    async def known(self) -> None:
        """Waits for the first lists of all followers. Raises GadgetError when a required resource cannot be listed."""
        await asyncio.gather(*(follows.known() for follows in self._follows))

    def _store(self, resource: Resource, follower: Follower) -> "_Store":
        key = resource, follower.namespace
        store = self._stores.get(key)
        if store is None:
            store = self._stores[key] = _Store(resource.kind)
            self.subscribe(Subscription(resource, store.take, follower.namespace, aside=follower.is_aside))
        store.keep_seconds = max(store.keep_seconds, follower.keep_seconds)
        return store

    def _start(self, resource: Resource, namespace: str | None, members: Sequence[Subscription]) -> None:
        """Starts one watch of all namespaces (None) for all members, or one for each of their namespaces."""
        if namespace is None:
            watch = _Watch(self._api, WatchScope(resource), list(members))
            if any(_is_narrow(one, watch.scope) for one in members):
                asyncio.get_running_loop().call_later(WIDE_SECONDS, self._divide, watch)
            self._tasks.start(self._run(watch), f"watch of {resource.plural}")
            return
        by_namespace: dict[str | None, list[Subscription]] = {}
        for one in members:
            by_namespace.setdefault(one.namespace or namespace, []).append(one)
        for each, some in by_namespace.items():
            self._tasks.start(
                self._run(_Watch(self._api, WatchScope(resource, each), some)), f"watch of {resource.plural}"
            )

    def _divide(self, watch: "_Watch") -> None:
        """Give subscribers of one namespace a list of their own, because the list of all namespaces takes long."""
        if not watch.listed and not watch.over:
            self._start_own(watch)

    def _start_own(self, watch: "_Watch") -> None:
        narrow = [one for one in watch.members if _is_narrow(one, watch.scope)]
        watch.members[:] = [one for one in watch.members if one not in narrow]
        self._start(watch.scope.resource, "", narrow)

    async def _run(self, watch: "_Watch") -> None:
        try:
            await watch.run(self._end)
        except Exception as caught:
            error = as_gadget_error(caught)
        watch.over = True
        self._start_own(watch)
        scope, fallback = watch.scope, self._namespace
        if isinstance(error, ForbiddenError) and scope.resource.namespaced and scope.namespace is None and fallback:
            optional = [one for one in watch.members if one.failed is None]
            for one in optional:
                one.narrowed(scope.resource)
            self._report(scope.resource, error, optional)
            watch.members[:] = [one for one in watch.members if one not in optional]
            self._start(scope.resource, fallback, optional)
        self._end(scope.resource, watch.members, error)

    def _end(self, resource: Resource, members: Iterable[Subscription], error: GadgetError) -> None:
        """Tells these subscribers that no more changes will come."""
        members = list(members)
        for one in members:
            if one.failed is not None:
                self._fatal.add(str(error))
                one.failed(error)
            else:
                one.narrowed(resource)
                one.ended()
        self._report(resource, error, [one for one in members if one.failed is None])

    def _report(self, resource: Resource, error: GadgetError, members: Iterable[Subscription]) -> None:
        if not self._failures:
            asyncio.get_running_loop().call_later(_SETTLE_SECONDS, self._flush)
        self._failures += [(resource, error, one.missing) for one in members if one.missing]

    def _flush(self) -> None:
        """Reports each error once, everything forbidden in one line. Errors that end the run are reported elsewhere."""
        failures, self._failures = sorted(self._failures, key=lambda failure: failure[0].plural), []
        by_error: dict[str, list[tuple[Resource, GadgetError, str]]] = {}
        for failure in failures:
            if str(failure[1]) not in self._fatal:
                by_error.setdefault("" if isinstance(failure[1], ForbiddenError) else str(failure[1]), []).append(
                    failure
                )
        for text, found in by_error.items():
            names = ", ".join(dict.fromkeys(resource.plural for resource, _, _ in found))
            missing = "; ".join(dict.fromkeys(missing for _, _, missing in found))
            remedy = "; ".join(dict.fromkeys(error.remedy for _, error, _ in found if error.remedy))
            why = f"{names} cannot be listed: {text}" if text else f"you may not list {names} in the whole cluster"
            self._warn(f"{missing}, since {why}" + (f" (try: {remedy})" if remedy else ""))


def _is_narrow(one: Subscription, scope: WatchScope) -> bool:
    """True if it needs less than the watch delivers."""
    return scope.namespace is None and scope.resource.namespaced and one.namespace is not None


class _Watch:
    """One list and one watch, for several subscribers."""

    def __init__(self, api: Api, scope: WatchScope, members: list[Subscription]) -> None:
        self.scope = scope
        self.members = members
        self.listed = False
        self.over = False
        self._api = api

    async def run(self, end: Callable[[Resource, list[Subscription], GadgetError], object]) -> None:
        """Runs until it fails. A subscriber that fails on its own is passed to `end`, and the others go on."""
        async with aclosing(follow(self._api, self.scope)) as changes:
            async for change in changes:
                self.listed = True
                for one in tuple(self.members):
                    try:
                        self._give(one, change)
                    except Exception as error:
                        self.members.remove(one)
                        end(self.scope.resource, [one], as_gadget_error(error))
                del change  # the first one has the list of all objects, and the next one may come late
        raise ClusterError(f"the watch of {self.scope.resource.plural} ended")

    def _give(self, one: Subscription, change: Change) -> None:
        if not _is_narrow(one, self.scope):
            one.take(change)
        elif isinstance(change, Synced):
            one.take(Synced([item for item in change.items if item["metadata"].get("namespace") == one.namespace]))
        elif change.object["metadata"].get("namespace") == one.namespace:
            one.take(change)


class _Store:
    """The data of all objects of one resource, for followers. Deleted ones come first: an address's present owner
    wins."""

    def __init__(self, kind: str) -> None:
        self.keep_seconds = 0.0
        self._kind = kind
        self._gone: dict[str, tuple[float, Object]] = {}
        """by uid: when it was deleted (monotonic seconds)"""
        self._there: dict[str, Object] = {}

    def take(self, change: Change) -> None:
        now = time.monotonic()
        if isinstance(change, Synced):
            there = {item["metadata"]["uid"]: kept(self._kind, item) for item in change.items}
            self._gone |= {uid: (now, _gone(found)) for uid, found in self._there.items() if uid not in there}
            self._there = there
        else:
            uid = change.object["metadata"]["uid"]
            if change.deleted:
                self._there.pop(uid, None)
                self._gone[uid] = now, _gone(kept(self._kind, change.object))
            else:
                self._there[uid] = kept(self._kind, change.object)
        limit = now - self.keep_seconds
        gone = self._gone.items()
        self._gone = {uid: found for uid, found in gone if found[0] > limit and uid not in self._there}

    def objects(self, keep_seconds: float) -> list[Object]:
        """Returns the present objects, and those deleted less than `keep_seconds` ago."""
        limit = time.monotonic() - keep_seconds
        return [*(found for since, found in self._gone.values() if since > limit), *self._there.values()]


def _gone(found: Object) -> Object:
    return {**found, GONE: datetime.now(UTC).isoformat(timespec="seconds")}


class _Follows:
    """Runs one follower."""

    def __init__(
        self, follower: Follower, stores: Mapping[Resource, _Store], tasks: Tasks, warn: Callable[[str], object]
    ) -> None:
        self._follower = follower
        self._stores = stores
        self._tasks = tasks
        self._warn = warn
        self._unlisted = set(stores)
        self._changed = asyncio.Event()
        self._known = asyncio.Event()
        self._error: GadgetError | None = None

    def subscription(self, resource: Resource) -> Subscription:
        """Returns the subscription that wakes the follower after the store has taken a change."""

        def changed(_: object = None) -> None:
            self._unlisted.discard(resource)
            self._changed.set()

        namespace, missing = self._follower.namespace, self._follower.missing
        if resource in self._follower.required:
            return Subscription(resource, changed, namespace, failed=self._fail)
        narrowed = self._follower.narrowed
        return Subscription(
            *(resource, changed, namespace),
            missing=missing,
            ended=changed,
            narrowed=narrowed,
            aside=self._follower.is_aside,
        )

    async def known(self) -> None:
        follower = self._follower
        try:
            async with asyncio.timeout(follower.first_seconds):
                await self._known.wait()
        except TimeoutError:
            if follower.required:
                names = " and ".join(sorted(resource.plural for resource in self._unlisted))
                text = f"{names or 'the objects'} of the cluster were not listed within {follower.first_seconds:g} s"
                raise ClusterError(text) from None
        if self._error is not None:
            raise self._error

    async def run(self) -> None:
        """Passes each state on, starting when all resources were listed."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if not self._unlisted and not await self._take():
                return
            await asyncio.sleep(_SETTLE_SECONDS)

    async def _take(self) -> bool:
        """Passes the present state on. Returns whether to go on."""
        follower = self._follower
        found = {resource: store.objects(follower.keep_seconds) for resource, store in self._stores.items()}
        try:
            commit = await in_thread(lambda: follower.take(found))
            if commit is not None:
                commit()
        except Exception as caught:
            error = as_gadget_error(caught)
            if follower.required and (isinstance(error, InternalError) or not self._known.is_set()):
                self._fail(error)
                return False
            self._warn(f"{follower.unchanged}: {error}")
            return not isinstance(error, InternalError)
        finally:
            first = not self._known.is_set()
            self._known.set()
        if first:
            follower.listed()
        return True

    def _fail(self, error: GadgetError) -> None:
        """Ends the run: through `known` while that is still awaited."""
        if self._known.is_set():
            self._tasks.fail(error)
        self._error = self._error or error
        self._known.set()


# The parts of objects that anything here reads, for memory during a run and for recordings.


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
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        if probe := _some(found.get(name) or {}, ("httpGet", "tcpSocket", "grpc")):
            slim[name] = {how: _some(call, ("host", "port")) for how, call in probe.items()}
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


def _some(found: Object, names: Sequence[str]) -> Object:
    return {name: found[name] for name in names if found.get(name)}
