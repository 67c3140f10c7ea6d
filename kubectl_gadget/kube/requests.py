"""Requests to the API server: get, list, create, apply, patch, delete, and access checks.

The trap: 403 is never retried, and neither is a create; only 429 (the server is busy and did nothing) is retried.
"""

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from kubectl_gadget.errors import ForbiddenError
from kubectl_gadget.kube.connection import PARALLEL, Connection, Query, Response, in_thread
from kubectl_gadget.kube.failure import Access, StatusError, from_status
from kubectl_gadget.kube.kubeconfig import Cluster
from kubectl_gadget.kube.resources import ACCESS_REVIEWS, PODS, SELF_REVIEWS, Object, Resource

Value = TypeVar("Value")

_PAGE = "500"
_BUSY_TRIES = 5
FIELD_MANAGER = "kubectl-gadget"


@dataclass(frozen=True)
class Listing:
    """The list of all objects at one moment."""

    items: list[Object]
    resource_version: str
    """where a watch continues"""


_MOST_WARNINGS = 100
"""of the server, each shown once"""


class Api:
    """The API server's objects. `warn` is called once for each different warning of the server."""

    def __init__(self, cluster: Cluster, warn: Callable[[str], None] = lambda _: None) -> None:
        self.cluster = cluster
        self.connection = Connection(cluster)
        self._warn = warn
        self._warned: set[str] = set()
        self._slots = asyncio.Semaphore(PARALLEL)

    def close(self) -> None:
        """Closes the connections to the API server."""
        self.connection.close()

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object | None:
        """Returns one object; None when it does not exist."""
        try:
            return await self._call("GET", "get", resource, namespace, name)
        except StatusError as error:
            if error.code == 404:
                return None
            raise

    async def find(
        self,
        resource: Resource,
        namespace: str | None = None,
        labels: str | None = None,
        fields: str | None = None,
        keep: Callable[[Object], Object] = lambda found: found,
    ) -> Listing:
        """Lists all objects that match the selectors, in one namespace or in all. `keep` returns what the list has of
        each, so that never more than a page is in memory as a whole."""
        items: list[Object] = []
        token = ""
        while True:
            query = selectors(labels, fields) + (("limit", _PAGE),) + ((("continue", token),) if token else ())
            answer = await self._call("GET", "list", resource, namespace, query=query)
            items += map(keep, answer.get("items") or ())
            token, version = (answer["metadata"].get(name, "") for name in ("continue", "resourceVersion"))
            if not token:
                return Listing(items, version)
            del answer

    async def log(self, name: str, namespace: str, container: str, *, previous: bool, lines: int, size: int) -> str:
        """Returns the last lines of a container's log. `previous`: of its last run before this one. `size`: the most
        bytes to read, from the first of these lines on."""
        query = [("container", container), ("tailLines", str(lines)), ("limitBytes", str(size))]
        query += [("previous", "true")] if previous else []
        access = Access("get", PODS.qualified, namespace, "log", name)
        url = self.connection.url(PODS.path(namespace, name, "log"), tuple(query))
        answer = await self._answer(lambda: self._send("GET", url, access))
        return answer.data.decode("utf-8", "replace")

    async def create(self, resource: Resource, body: Object, namespace: str | None = None) -> Object:
        """Creates an object, and returns it as the server stored it."""
        # Older servers do not know every field of our pods; they drop unknown ones, and need not report it.
        return await self._call(
            "POST", "create", resource, namespace, query=(("fieldValidation", "Ignore"),), body=body
        )

    async def apply(
        self, resource: Resource, body: Object, namespace: str | None = None, manager: str = FIELD_MANAGER
    ) -> Object:
        """Server-side apply: creates the object, or changes it to match `body`. Removes fields that `body` lacks and
        no other `manager` has applied."""
        query = (("fieldManager", manager), ("force", "true"), ("fieldValidation", "Ignore"))
        name = body["metadata"]["name"]
        return await self._call(
            "PATCH", "patch", resource, namespace, name, query=query, body=body, content="application/apply-patch+yaml"
        )

    async def patch(self, resource: Resource, name: str, body: Object, namespace: str | None = None) -> Object:
        """Applies a JSON merge patch."""
        content = "application/merge-patch+json"
        return await self._call("PATCH", "patch", resource, namespace, name, body=body, content=content)

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        uid: str | None = None,
        grace_seconds: int | None = None,
        version: str | None = None,
    ) -> bool:
        """Deletes the object and everything it owns, in the background. Returns False when it did not exist, or had
        another `uid` or resource `version`."""
        body: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        wanted = {"uid": uid, "resourceVersion": version}
        if given := {key: value for key, value in wanted.items() if value is not None}:
            body["preconditions"] = given
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        try:
            await self._call("DELETE", "delete", resource, namespace, name, body=body)
        except StatusError as error:
            if error.code in (404, 409):
                return False
            raise
        return True

    async def missing(self, wanted: Sequence[Access]) -> list[Access]:
        """Return the members of `wanted` that the API server would refuse."""
        allowed = await asyncio.gather(*(self._is_allowed(access) for access in wanted))
        return [access for access, yes in zip(wanted, allowed, strict=True) if not yes]

    async def has_all_rights(self) -> bool:
        """True if everything is allowed, like for cluster administrators; one question instead of many."""
        return await self._is_allowed(Access("*", "*.*"))

    async def user(self) -> str:
        """Returns the name by which the API server knows us; empty: it does not say, as before Kubernetes 1.28."""
        review = {"apiVersion": SELF_REVIEWS.api_version, "kind": SELF_REVIEWS.kind}
        try:
            answer = await self._call("POST", "create", SELF_REVIEWS, body=review)
        except (StatusError, ForbiddenError):
            return ""
        return str(((answer.get("status") or {}).get("userInfo") or {}).get("username") or "")

    async def require(self, wanted: Sequence[Access], purpose: str, remedy: str | None = None) -> None:
        """Raises ForbiddenError that lists everything missing."""
        missing = await self.missing(wanted)
        if missing:
            raise self.forbidden(missing, purpose, remedy)

    def forbidden(self, missing: Sequence[Access], purpose: str, remedy: str | None = None) -> ForbiddenError:
        """Returns the error that lists everything missing, and how to check it."""
        commands = "\n".join(f"  {access}: {access.command(self.cluster.impersonate)}" for access in missing)
        return ForbiddenError(f"Forbidden: to {purpose} you need, and do not have, the right to\n{commands}", remedy)

    async def _is_allowed(self, access: Access) -> bool:
        plural, _, group = access.resource.partition(".")
        attributes = {
            "verb": access.verb,
            "resource": plural,
            "group": group,
            "namespace": access.namespace or "",
            "subresource": access.subresource or "",
            "name": access.name or "",
        }
        review = {
            "apiVersion": ACCESS_REVIEWS.api_version,
            "kind": ACCESS_REVIEWS.kind,
            "spec": {"resourceAttributes": attributes},
        }
        try:
            answer = await self._call("POST", "create", ACCESS_REVIEWS, body=review)
        except ForbiddenError:
            return True  # without the right to ask, the request itself will show it
        return bool((answer.get("status") or {}).get("allowed"))

    async def _call(
        self,
        method: str,
        verb: str,
        resource: Resource,
        namespace: str | None = None,
        name: str | None = None,
        query: Query = (),
        body: Object | None = None,
        content: str = "application/json",
    ) -> Object:
        access = Access(verb, resource.qualified, namespace if resource.namespaced else None)
        url = self.connection.url(resource.path(namespace, name), query)
        value, warnings = await self._answer(lambda: self._parsed(self._send(method, url, access, body, content)))
        for warning in warnings:
            self.warn_once(warning)
        return value

    async def _answer(self, send: Callable[[], Value | float]) -> Value:
        """Returns what `send`, called in a thread, returns; again after some time while it returns the seconds to
        wait because the server is busy."""
        async with self._slots:
            for attempt in range(1, _BUSY_TRIES + 1):
                answer = await in_thread(send)
                if not isinstance(answer, float):
                    return answer
                if attempt < _BUSY_TRIES:
                    await asyncio.sleep(answer * attempt)
        raise StatusError(429, "TooManyRequests", f"the API server {self.cluster.server} is too busy")

    def warn_once(self, text: str) -> None:
        """Passes a warning of the server on, unless it was passed on before."""
        if text not in self._warned and len(self._warned) < _MOST_WARNINGS:
            self._warned.add(text)
            self._warn(text)

    def _send(
        self, method: str, url: str, access: Access, body: Object | None = None, content: str = "application/json"
    ) -> Response | float:
        """Sends a request in a thread. Returns the answer, or the seconds to wait when the server is busy."""
        route = self.connection.route()
        answer = self.connection.request(route, method, url, body, content)
        if answer.status == 401 and self.connection.renew(route):
            answer = self.connection.request(self.connection.route(), method, url, body, content)
        if answer.status == 429:
            return _seconds(answer.headers.get("Retry-After"))
        if answer.status >= 400:
            raise from_status(answer.status, answer.data, self.cluster.server, access, self.cluster.impersonate)
        return answer

    def _parsed(self, answer: Response | float) -> tuple[Object, list[str]] | float:
        """Returns the object in an answer, and its warnings."""
        if isinstance(answer, float):
            return answer
        try:
            value: object = json.loads(answer.data)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise StatusError(answer.status, "", f"{self.cluster.server} did not answer as a Kubernetes API server")
        return value, [warning_text(line) for line in answer.headers.getlist("Warning")]


def selectors(labels: str | None, fields: str | None) -> Query:
    """Returns the query parameters of a list or a watch."""
    pairs = (("labelSelector", labels), ("fieldSelector", fields))
    return tuple((name, value) for name, value in pairs if value)


def _seconds(retry_after: str | None) -> float:
    try:
        return min(max(float(retry_after or 1), 0.1), 10.0)
    except ValueError:
        return 1.0


def warning_text(header: str) -> str:
    """Returns the text of a Warning header (RFC 7234, 5.5): 299 - "text"."""
    found = re.search(r'"((?:[^"\\]|\\.)*)"', header)
    return re.sub(r"\\(.)", r"\1", found[1]) if found else header
