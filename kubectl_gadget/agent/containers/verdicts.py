"""FILTER of docs/protocol.md: whether events of a container, or of the host, are wanted.

The numbers are those of bpf/include/gadget/filter.h. The trap: a container whose names are not known gets no verdict;
its events are sent, and the client decides. Only in a session that may see a single namespace, events without a verdict
are not sent (gadget_node_named_only).
"""

from kubectl_gadget.agent.containers.identity import ContainerIdentity
from kubectl_gadget.wire.client_messages import FilterSpec

_AGENT = "agent"
"""The container name in an agent's pod (manifests/daemonset.yaml)."""
WANTED, UNWANTED, WANTED_HOST, UNWANTED_HOST = 1, 2, 3, 4


class ContainerSelection:
    """The meaning of FILTER.

    `own_pod` is the UID of the agent's own pod, and `own_namespace` may contain other agents. Activity of agents is
    excluded, unless it or their namespace was requested. `only` is the one namespace that the session may see, whatever
    `wanted` says.
    """

    def __init__(self, wanted: FilterSpec, own_pod: str = "", own_namespace: str = "", only: str | None = None) -> None:
        self._namespaces = _names(wanted.namespaces)
        self._pods = _names(wanted.pods)
        self._containers = _names(wanted.containers)
        self._exclude = frozenset(wanted.exclude_pods)
        self._host = wanted.host
        without_agents = self._namespaces is None and not wanted.own_processes
        self._agents = own_namespace if without_agents else ""
        if own_pod and without_agents:
            self._exclude |= {own_pod}
        if only is not None:
            self._namespaces = frozenset({only}) if self._namespaces is None else self._namespaces & {only}
            self._host = False

    @property
    def host(self) -> int:
        """The verdict on cgroups of the host."""
        return WANTED_HOST if self._host else UNWANTED_HOST

    @property
    def is_open(self) -> bool:
        """Whether every container is wanted, except excluded ones."""
        return self._namespaces is None and self._pods is None and self._containers is None

    def verdict(self, container: ContainerIdentity) -> int:
        """Returns the verdict on a container whose names are known."""
        wanted = (
            (self._namespaces is None or container.namespace in self._namespaces)
            and (self._pods is None or container.pod in self._pods)
            and (self._containers is None or container.container in self._containers)
            and not self._excludes(container)
        )
        return WANTED if wanted else UNWANTED

    def _excludes(self, container: ContainerIdentity) -> bool:
        """Pods are excluded by UID; static pods by NAMESPACE/NAME, since the API server has another UID for them."""
        if self._agents and (container.namespace, container.container) == (self._agents, _AGENT):
            return True
        name = f"{container.namespace}/{container.pod}" if container.pod else ""
        return any(key in self._exclude for key in (container.pod_uid, name) if key)


def _names(names: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)
