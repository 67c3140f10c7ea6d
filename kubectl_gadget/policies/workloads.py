"""Whether a container, or a process of the node, belongs to a policy.

    said in the policy                      for whom
    nothing                                 everything, the node's own processes too
    podSelector or containerSelector        containers that they select
    hostSelector: {}                        the node's own processes
    hostSelector: {} and one of the others  both
    TracingPolicyNamespaced                 of all that, the pods of its namespace

The trap: an empty podSelector, `{}`, selects all pods, and so it leaves out the node's own processes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kubectl_gadget.policies.model import Labels, Requirement, Scope

NAMESPACE_LABEL = "k8s:io.kubernetes.pod.namespace"
"""A label that every pod has for podSelectors, so that they can select by namespace."""


@dataclass(frozen=True)
class Workload:
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


def belongs(scope: Scope, workload: Workload) -> bool:
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
    return is_for_labels(scope, workload.namespace, workload.labels) and _selected(scope.containers, container)


def is_for_labels(scope: Scope, namespace: str, labels: Mapping[str, str]) -> bool:
    """Whether the podSelector takes a pod of that namespace with these labels."""
    return _selected(scope.pods, {NAMESPACE_LABEL: namespace, **labels})


def is_for_node(scope: Scope, labels: Mapping[str, str]) -> bool:
    """Whether a node with these labels gets the policy at all."""
    return _selected(scope.nodes, labels)


def _selected(selector: Labels | None, labels: Mapping[str, str]) -> bool:
    return all(_holds(requirement, labels) for requirement in selector or ())


def _holds(requirement: Requirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value in requirement.values
        case "NotIn":
            return value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
