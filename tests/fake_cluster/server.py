"""The API server's HTTP side: paths, verbs, RBAC, watches.

A watch is requested over HTTP (by kubectl) or over a websocket (by us), and both must give the same.
"""

import asyncio
import contextlib
import copy
import itertools
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aiohttp import web

from tests.fake_cluster.exec import ServeExec, compile_modules
from tests.fake_cluster.faults import Faults
from tests.fake_cluster.kubelet import POD_SECURITY, Kubelet
from tests.fake_cluster.store import InvalidObject, Object, Store, matcher

RESOURCES = {
    "pods": ("Pod", True),
    "services": ("Service", True),
    "ipaddresses": ("IPAddress", False),
    "endpointslices": ("EndpointSlice", True),
    "networkpolicies": ("NetworkPolicy", True),
    "events": ("Event", True),
    "configmaps": ("ConfigMap", True),
    "serviceaccounts": ("ServiceAccount", True),
    "nodes": ("Node", False),
    "namespaces": ("Namespace", False),
    "daemonsets": ("DaemonSet", True),
    "deployments": ("Deployment", True),
    "replicasets": ("ReplicaSet", True),
    "statefulsets": ("StatefulSet", True),
    "replicationcontrollers": ("ReplicationController", True),
    "jobs": ("Job", True),
    "cronjobs": ("CronJob", True),
    "roles": ("Role", True),
    "rolebindings": ("RoleBinding", True),
    "clusterroles": ("ClusterRole", False),
    "validatingadmissionpolicies": ("ValidatingAdmissionPolicy", False),
    "validatingadmissionpolicybindings": ("ValidatingAdmissionPolicyBinding", False),
    "clusterrolebindings": ("ClusterRoleBinding", False),
    "selfsubjectreviews": ("SelfSubjectReview", False),
    "selfsubjectaccessreviews": ("SelfSubjectAccessReview", False),
}
_VERBS = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}


class Refused(Exception):
    """An error answer of the API server."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.body = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        }


class Server:
    """Answers requests from the store."""

    def __init__(
        self,
        store: Store,
        faults: Faults,
        kubelet: Kubelet,
        agent: Callable[[str], tuple[str, ...]],
        environment: dict[str, str],
        serve_exec: ServeExec,
    ) -> None:
        self._serve_exec = serve_exec
        self.folders = TemporaryDirectory(prefix="fake-pods-")
        """contains the emptyDir of each pod"""
        self._store = store
        self._faults = faults
        self._kubelet = kubelet
        self._agent = agent
        self._environment = environment
        self._applied: dict[tuple[str, ...], set[str]] = {}
        """annotations of cluster-wide objects, by what the requests named, which includes who applied them"""
        self.requests: list[tuple[str, str]] = []
        """(verb, resource) of each request, in order"""
        self.watches: set[asyncio.BaseTransport] = set()
        self._addresses = itertools.count(2)
        self.headers: list[dict[str, str]] = []
        """headers of each request"""
        self.app = web.Application(client_max_size=64 << 20)
        for prefix in ("/api/v1", "/apis/{group}/{version}"):
            for scope in ("/namespaces/{namespace}", ""):
                for tail in ("/{plural}", "/{plural}/{name}", "/{plural}/{name}/{sub}"):
                    self.app.router.add_route("*", prefix + scope + tail, self._answer)

    def break_watches(self) -> None:
        """Cuts the connections of all watches."""
        for transport in tuple(self.watches):
            assert isinstance(transport, asyncio.Transport)
            transport.abort()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        try:
            response = await self._dispatch(request)
        except InvalidObject as error:
            plural, name = request.match_info["plural"], request.match_info.get("name", "")
            text = f'{RESOURCES[plural][0]} "{name}" is invalid: {error}'
            response = web.json_response(Refused(422, "Invalid", text).body, status=422)
        except Refused as refused:
            response = web.json_response(refused.body, status=refused.code)
            if refused.code == 429:
                response.headers["Retry-After"] = "0"
        if self._faults.warning and not response.prepared:
            response.headers["Warning"] = f'299 - "{self._faults.warning}"'
        return response

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        info = request.match_info
        plural, name, sub = info["plural"], info.get("name"), info.get("sub")
        namespace = info.get("namespace")
        if plural not in RESOURCES or (plural == "ipaddresses" and self._faults.no_addresses):
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        if RESOURCES[plural][1] and namespace is None and (name is not None or request.method == "POST"):
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        watching = "watch" in request.query
        verb = _VERBS.get(request.method) or ("watch" if watching else "get" if name else "list")
        if sub == "exec":
            verb = "create"
        self._admit(request, verb, f"{plural}/{sub}" if sub else plural, namespace)
        if (plural, sub) == ("pods", "log"):
            return self._log(request, namespace or "", name or "")
        if sub is not None:
            return await self._exec(request, plural, namespace or "", name or "", sub)
        answer: Callable[[], Awaitable[web.StreamResponse]] = {
            "watch": lambda: self._watch(request, plural, namespace),
            "list": lambda: self._list(request, plural, namespace),
            "get": lambda: self._get(plural, namespace or "", name or ""),
            "create": lambda: self._create(request, plural, namespace or ""),
            "patch": lambda: self._patch(request, plural, namespace or "", name or ""),
            "delete": lambda: self._delete(request, plural, namespace or "", name or ""),
        }[verb]
        return await answer()

    def _admit(self, request: web.Request, verb: str, resource: str, namespace: str | None) -> None:
        self.requests.append((verb, resource))
        self.headers.append(dict(request.headers))
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self._faults.unauthorized or token in self._faults.refused_tokens:
            raise Refused(401, "Unauthorized", "Unauthorized")
        if self._faults.busy:
            self._faults.busy -= 1
            raise Refused(429, "TooManyRequests", "too many requests")
        if self._faults.starting:
            self._faults.starting -= 1
            raise Refused(500, "InternalError", "the storage is not ready")
        whole = self._faults.forbidden_in_whole if namespace is None else ()
        name = request.match_info.get("name") if resource == "namespaces" else None
        foreign = not self._faults.foreign.isdisjoint({namespace, name})
        if foreign or (verb, resource) in self._faults.forbidden or (verb, resource) in whole:
            where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
            plural = resource.partition("/")[0]
            text = f'{plural} is forbidden: User "tester" cannot {verb} resource "{resource}" in API group "" {where}'
            raise Refused(403, "Forbidden", text)

    def _found(self, plural: str, namespace: str, name: str) -> Object:
        found = self._store.get(plural, namespace, name)
        if found is None:
            raise Refused(404, "NotFound", f'{plural} "{name}" not found')
        return found

    async def _get(self, plural: str, namespace: str, name: str) -> web.StreamResponse:
        return web.json_response(self._found(plural, namespace, name))

    def _log(self, request: web.Request, namespace: str, name: str) -> web.StreamResponse:
        """The end of a container's log, whole lines first and then their first bytes, as kubelets do it."""
        self._found("pods", namespace, name)
        if self._faults.failing_logs:
            self._faults.failing_logs -= 1
            raise Refused(500, "InternalError", "the kubelet cannot be reached")
        container, previous = request.query["container"], request.query.get("previous") == "true"
        log = self._store.logs.get((namespace, name, container, previous))
        if log is None:
            run = "previous terminated container" if previous else "container"
            raise Refused(400, "BadRequest", f'{run} "{container}" in pod "{name}" not found')
        lines = log.splitlines(keepends=True)[-int(request.query["tailLines"]) :]
        text = "".join(lines).encode()[: int(request.query["limitBytes"])]
        return web.Response(body=text, content_type="text/plain")

    async def _list(self, request: web.Request, plural: str, namespace: str | None) -> web.StreamResponse:
        if namespace is None and plural in self._faults.held_lists:
            await asyncio.Event().wait()
        accepts = matcher(request.query.get("labelSelector", ""), request.query.get("fieldSelector", ""))
        items = [found for found in self._store.list(plural, namespace) if accepts(found)]
        metadata = {"resourceVersion": str(self._store.version)}
        start, limit = int(request.query.get("continue", 0)), int(request.query.get("limit", 0))
        if limit and start + limit < len(items):
            metadata["continue"] = str(start + limit)
        items = items[start : start + limit] if limit else items
        kind = f"{RESOURCES[plural][0]}List"
        return web.json_response({"kind": kind, "apiVersion": "v1", "metadata": metadata, "items": items})

    async def _create(self, request: web.Request, plural: str, namespace: str) -> web.StreamResponse:
        body = await request.json()
        if plural == "selfsubjectaccessreviews":
            if self._faults.held_reviews:
                await asyncio.Event().wait()
            return web.json_response(self._review(body), status=201)
        if plural == "selfsubjectreviews":
            return web.json_response(body | {"status": {"userInfo": {"username": "tester"}}}, status=201)
        if namespace:
            home = self._store.get("namespaces", "", namespace)
            if home is None:
                raise Refused(404, "NotFound", f'namespaces "{namespace}" not found')
            if "deletionTimestamp" in home["metadata"]:
                text = f"unable to create new content in namespace {namespace} because it is being terminated"
                raise Refused(403, "Forbidden", f'{plural} "x" is forbidden: {text}')
        if plural == "pods" and self._faults.pod_security:
            raise Refused(403, "Forbidden", f'pods "agent" is forbidden: {POD_SECURITY}')
        if (
            plural == "pods"
            and self._faults.admission
            and namespace in (self._faults.admission_namespaces or {namespace})
        ):
            raise Refused(403, "Forbidden", self._faults.admission)
        return web.json_response(self.add(plural, namespace, body), status=201)

    def add(self, plural: str, namespace: str, body: Object) -> Object:
        try:
            found = self._store.add(plural, namespace, body)
        except KeyError as error:
            raise Refused(409, "AlreadyExists", f"{plural} {error} already exists") from None
        if plural == "services":
            self._give_address(found)
        self._kubelet.created(plural, found)
        return found

    def _give_address(self, service: Object) -> None:
        """Gives a service an address and, as since Kubernetes 1.33, the object that stands for it."""
        address = f"10.96.0.{next(self._addresses)}"
        service["spec"] |= {"clusterIP": address, "clusterIPs": [address]}
        if self._faults.no_addresses:
            return
        parent = {"resource": "services", **{key: service["metadata"][key] for key in ("namespace", "name")}}
        body = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IPAddress",
            "metadata": {"name": address},
            "spec": {"parentRef": parent},
        }
        self._store.add("ipaddresses", "", body)

    def _review(self, body: Object) -> Object:
        asked = body["spec"]["resourceAttributes"]
        resource = "/".join(part for part in (asked["resource"], asked.get("subresource")) if part)
        if (asked["verb"], resource) == ("*", "*"):
            return body | {"status": {"allowed": not (self._faults.forbidden or self._faults.foreign)}}
        name = asked.get("name") if resource == "namespaces" else None
        foreign = not self._faults.foreign.isdisjoint({asked.get("namespace"), name})
        return body | {"status": {"allowed": not foreign and (asked["verb"], resource) not in self._faults.forbidden}}

    async def _patch(self, request: web.Request, plural: str, namespace: str, name: str) -> web.StreamResponse:
        body = json.loads(await request.read())
        if request.content_type == "application/apply-patch+yaml":
            self._own_annotations(body, plural, name, request.query.get("fieldManager", ""))
            if self._store.get(plural, namespace, name) is None:
                return web.json_response(self.add(plural, namespace, body), status=201)
        version = self._found(plural, namespace, name)["metadata"]["resourceVersion"]
        if body.get("metadata", {}).get("resourceVersion", version) != version:
            raise Refused(409, "Conflict", f'{plural} "{name}": the object has been modified')
        return web.json_response(self._store.change(plural, namespace, name, lambda found: merge(found, body)))

    def _own_annotations(self, body: Object, plural: str, name: str, manager: str) -> None:
        """Removes annotations that the manager alone has applied earlier, and does not apply now."""
        annotations = body["metadata"].get("annotations", {})
        before = self._applied.pop((plural, name, manager), set())
        others = {key for place, keys in self._applied.items() if place[:2] == (plural, name) for key in keys}
        self._applied[plural, name, manager] = set(annotations)
        if gone := before - others - set(annotations):
            body["metadata"]["annotations"] = {**annotations, **dict.fromkeys(gone)}

    async def _delete(self, request: web.Request, plural: str, namespace: str, name: str) -> web.StreamResponse:
        found = copy.deepcopy(self._found(plural, namespace, name))
        wanted = (await request.json()).get("preconditions", {}) if request.can_read_body else {}
        for field, value in wanted.items():
            if value != found["metadata"][field]:
                raise Refused(409, "Conflict", f"the {field} in the precondition ({value}) does not match the record")
        self._kubelet.deleted(plural, namespace, name)
        return web.json_response(found)

    async def _exec(self, request: web.Request, plural: str, namespace: str, name: str, sub: str) -> web.StreamResponse:
        if (plural, sub) != ("pods", "exec"):
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        pod = self._found(plural, namespace, name)
        self._admit_by_policy(request, name)
        node = pod["spec"].get("nodeName", "")
        if node in self._faults.refused_exec:
            raise Refused(self._faults.refused_exec[node], "InternalError", f"error dialing backend: {node}")
        container = request.query.get("container", "")
        if container not in [found["name"] for found in pod["spec"]["containers"]]:
            raise Refused(400, "BadRequest", f"container {container} is not valid for pod {name}")
        if pod.get("status", {}).get("phase") != "Running":
            raise Refused(500, "InternalError", f"container not found ({container!r})")
        folder = Path(self.folders.name) / name
        folder.mkdir(exist_ok=True)
        namespace = pod["metadata"]["namespace"]
        environment = {"KUBECTL_GADGET_RUN": str(folder), "POD_NAMESPACE": namespace, **self._environment}
        environment["FAKE_POD"] = name
        served = await self._serve_exec(request, node, self._faults, self._agent(node), environment)
        if any(owner["kind"] == "DaemonSet" for owner in pod["metadata"].get("ownerReferences", ())):
            await compile_modules(os.listdir(folder), folder)
        return served

    def _admit_by_policy(self, request: web.Request, name: str) -> None:
        """Applies the policy for observers to commands; a real API server evaluates its CEL."""
        policy = "kubectl-gadget-observer"
        key = ("validatingadmissionpolicies", "", policy)
        if key not in self._store.objects or self._faults.policy_not_in_force:
            return
        if "--contained" not in request.query.getall("command", []):
            text = f"ValidatingAdmissionPolicy '{policy}' with binding '{policy}' denied request: agents are contained"
            raise Refused(422, "Invalid", f'The pods "{name}" is invalid: : {text}')

    async def _watch(self, request: web.Request, plural: str, namespace: str | None) -> web.StreamResponse:
        if self._faults.expire_watches:
            self._faults.expire_watches = False
            raise Refused(410, "Expired", "too old resource version")
        accepts = matcher(request.query.get("labelSelector", ""), request.query.get("fieldSelector", ""))
        version = int(request.query.get("resourceVersion") or 0)
        changes = self._store.follow(plural, namespace, version, accepts)
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._watch_websocket(request, changes)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        async with contextlib.aclosing(changes):
            async for kind, found in changes:
                await response.write(json.dumps({"type": kind, "object": found}).encode() + b"\n")
        return response

    async def _watch_websocket(self, request: web.Request, changes: Any) -> web.StreamResponse:
        if "Origin" not in request.headers:
            raise Refused(403, "", "null origin")
        websocket = web.WebSocketResponse(compress=False)
        await websocket.prepare(request)
        if self._faults.broken_watches:
            self._faults.broken_watches -= 1
            assert request.transport is not None
            request.transport.abort()
            return websocket

        if self._faults.babbling_watches:
            self._faults.babbling_watches -= 1
            await websocket.send_str("<html>the proxy's own page")

        async def send() -> None:
            async with contextlib.aclosing(changes):
                async for kind, found in changes:
                    await websocket.send_str(json.dumps({"type": kind, "object": found}))

        sender = asyncio.create_task(send(), name="watch")
        assert request.transport is not None
        self.watches.add(request.transport)
        try:
            await websocket.receive()
        finally:
            self.watches.discard(request.transport)
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
        return websocket


def merge(found: Object, patch: Object) -> None:
    """Applies a JSON merge patch (RFC 7396) in place."""
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, dict) and isinstance(found.get(key), dict):
            merge(found[key], value)
        else:
            found[key] = value
