"""Which policies apply to a container, by its names: SCOPE of docs/protocol.md.

The agent decides it by itself, since a container's first instruction may come before any answer of the client. The
trap: labels of pods are not known here.
"""

from typing import Any

from kubectl_gadget.agent.identity import Container
from kubectl_gadget.errors import FrameError


class Scope:
    """One policy's. Raises FrameError when it is not a SCOPE."""

    def __init__(self, value: dict[str, Any]) -> None:
        try:
            self.pods = bool(value["pods"])
            self.host = bool(value["host"])
            self._namespaces = _names(value.get("namespaces"))
            self._containers = [(line["key"], line["operator"], set(line["values"])) for line in value["containers"]]
        except (KeyError, TypeError) as error:
            raise FrameError(f"a policy's scope is not as docs/protocol.md says: {error!r}") from None

    @property
    def is_open(self) -> bool:
        """Whether it is for every container."""
        return self.pods and self._namespaces is None and not self._containers

    def has(self, container: Container) -> bool:
        """Whether it is for a container."""
        if not self.pods:
            return False
        if self._namespaces is not None and container.namespace not in self._namespaces:
            return False
        labels = {
            "name": container.container,
            "repo": repository(container.image),
            "namespace": container.namespace,
        }
        return all(_holds(labels.get(key), operator, values) for key, operator, values in self._containers)


class Scopes:
    """Of all policies of a session, which have numbers in this order."""

    def __init__(self, values: list[dict[str, Any]]) -> None:
        self._scopes = [Scope(value) for value in values]

    def of(self, container: Container | None) -> tuple[int, ...]:
        """The policies that apply to a container, or with None, or without a pod, to the host."""
        scopes = enumerate(self._scopes)
        if container is None or not container.pod:
            return tuple(number for number, scope in scopes if scope.host)
        return tuple(number for number, scope in scopes if scope.has(container))

    def of_unknown(self) -> tuple[int, ...]:
        """Those for a cgroup whose container has no name yet: they apply to every container."""
        return tuple(number for number, scope in enumerate(self._scopes) if scope.is_open)


def repository(image: str) -> str:
    """An image's name without its tag and digest: "docker.io/library/nginx"."""
    name = image.partition("@")[0]
    head, colon, tag = name.rpartition(":")
    return head if colon and "/" not in tag else name


def _holds(label: str | None, operator: str, values: set[str]) -> bool:
    match operator:
        case "In":
            return label in values
        case "NotIn":
            return label not in values
        case "Exists":
            return label is not None
        case "DoesNotExist":
            return label is None
    raise FrameError(f"a policy's scope has the unknown operator {operator!r}")


def _names(value: list[str] | None) -> frozenset[str] | None:
    return None if value is None else frozenset(value)
