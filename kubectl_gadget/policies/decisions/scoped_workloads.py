"""Whether a container, or a process of the node, belongs to a policy: the table in policies/scope_labels.py."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kubectl_gadget.policies.model import Scope
from kubectl_gadget.policies.scope_labels import is_for_labels, is_for_node, selected


@dataclass(frozen=True)
class ScopedWorkload:
    """What selectors look at. Without a pod it is a process of the node itself."""

    namespace: str = ""
    pod: str = ""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    container: str = ""
    repository: str = ""
    """of the container's image, without tag and digest"""
    node_labels: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def is_host(self) -> bool:
        """Whether it is not a container."""
        return not self.pod


def belongs(scope: Scope, workload: ScopedWorkload) -> bool:
    """Whether a policy, or a selector, of this scope is for the workload."""
    if not is_for_node(scope, workload.node_labels):
        return False
    only_host = scope.host and scope.pods is None and scope.containers is None
    if workload.is_host:
        everything = scope.pods is None and scope.containers is None
        return scope.namespace is None and (scope.host or everything)
    if (only_host and scope.namespace is None) or scope.namespace not in (None, workload.namespace):
        return False
    container = {"name": workload.container, "repo": workload.repository}
    return is_for_labels(scope, workload.namespace, workload.labels) and selected(scope.containers, container)
