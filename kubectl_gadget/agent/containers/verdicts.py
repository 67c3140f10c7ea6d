"""FILTER of docs/protocol.md: whether events of a container, or of the host, are wanted.

The numbers are those of bpf/include/gadget/filter.h. The trap: events of a container without a verdict are sent, so one
that could not be named gets none, and the client decides. The exception is a session that may see only one namespace:
there, events without a verdict are not sent (gadget_node_named_only).
"""

from kubectl_gadget.agent.containers.identity import ContainerIdentity
from kubectl_gadget.wire.client_messages import FilterSpec

_AGENT = "agent"
"""The container name in an agent's pod (manifests/daemonset.yaml)."""
WANTED, UNWANTED, WANTED_HOST, UNWANTED_HOST = 1, 2, 3, 4


class ContainerSelection:
    """The meaning of FILTER.

    The pod `own_pod` is the agent's own, and `own_namespace` may contain other agents. Activity of agents is excluded,
    unless they, or their namespace, were asked for by name. `only` is the one namespace that the session may see,
    whatever `wanted` asks for.
    """

    def __init__(self, wanted: FilterSpec, own_pod: str = "", own_namespace: str = "", only: str | None = None) -> None:
        self._namespaces = _names(wanted.namespaces)
        self._pods = _names(wanted.pods)
        self._containers = _names(wanted.containers)
        self._exclude = frozenset(wanted.exclude_pods)
        self._host = wanted.host
        leaves_out = self._namespaces is None and not wanted.own_processes
        self._agents = own_namespace if leaves_out else ""
        if own_pod and leaves_out:
            self._exclude |= {own_pod}
        if only is not None:
            self._namespaces = frozenset({only}) if self._namespaces is None else self._namespaces & {only}
            self._host = False

    @property
    def host(self) -> int:
        """The verdict on a cgroup of the host."""
        return WANTED_HOST if self._host else UNWANTED_HOST

    @property
    def is_open(self) -> bool:
        """Whether every container is wanted, except excluded ones."""
        return self._namespaces is None and self._pods is None and self._containers is None

    def verdict(self, container: ContainerIdentity) -> int:
        """The verdict on a container whose names are known."""
        wanted = (
            (self._namespaces is None or container.namespace in self._namespaces)
            and (self._pods is None or container.pod in self._pods)
            and (self._containers is None or container.container in self._containers)
            and not self._excludes(container)
        )
        return WANTED if wanted else UNWANTED

    def _excludes(self, container: ContainerIdentity) -> bool:
        """Pods are excluded by UID; static pods, whose containers have another UID than the API, by NAMESPACE/NAME."""
        if self._agents and (container.namespace, container.container) == (self._agents, _AGENT):
            return True
        name = f"{container.namespace}/{container.pod}" if container.pod else ""
        return any(key in self._exclude for key in (container.pod_uid, name) if key)


def _names(names: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)
