"""What a policy, or a selector, applies to: by labels of pods and nodes, and by names and images of containers.

    in the policy                           applies to
    nothing                                 everything, including the node's own processes
    podSelector or containerSelector        the containers that they select
    hostSelector: {}                        the node's own processes
    hostSelector: {} and one of the others  both
    TracingPolicyNamespaced                 of all these, the pods of its namespace

The client evaluates labels, which agents do not know, and tells them which scopes hold (policies/run/labels.py);
agents evaluate the rest (agent/policies/scopes.py). The trap: an empty podSelector, `{}`, selects all pods, and
therefore excludes the node's own processes.
"""

from collections.abc import Mapping

from kubectl_gadget.kube.label_selectors import Requirement
from kubectl_gadget.policies.model import Labels, Scope
from kubectl_gadget.wire.policy_messages import ContainerCondition, ScopeSpec

NAMESPACE_LABEL = "k8s:io.kubernetes.pod.namespace"
"""A label that podSelectors see on every pod, so that they can select by namespace."""


def is_for_labels(scope: Scope, namespace: str, labels: Mapping[str, str]) -> bool:
    """Whether the podSelector selects a pod of that namespace with these labels."""
    return selected(scope.pods, {NAMESPACE_LABEL: namespace, **labels})


def is_for_node(scope: Scope, labels: Mapping[str, str]) -> bool:
    """Whether the policy applies to a node with these labels at all."""
    return selected(scope.nodes, labels)


def selected(selector: Labels | None, labels: Mapping[str, str]) -> bool:
    """Whether all requirements of a label selector hold; True when there is no selector."""
    return all(requirement.accepts(labels) for requirement in selector or ())


def by_labels(scope: Scope) -> bool:
    """Whether the scope depends on labels of pods."""
    return any(requirement.key != NAMESPACE_LABEL for requirement in scope.pods or ())


def by_node(scope: Scope) -> bool:
    """Whether the scope depends on labels of nodes."""
    return bool(scope.nodes)


def scope_spec(scope: Scope) -> ScopeSpec:
    """The scope as agents evaluate it: SCOPE of docs/protocol.md."""
    chosen = scope.pods is not None or scope.containers is not None
    only_host = scope.host and not chosen
    names = (requirement for requirement in scope.pods or () if requirement.key == NAMESPACE_LABEL)
    return ScopeSpec(
        pods=not only_host or scope.namespace is not None,
        host=scope.namespace is None and (scope.host or not chosen),
        namespaces=None if scope.namespace is None else (scope.namespace,),
        containers=tuple(_condition(requirement) for requirement in (*names, *(scope.containers or ()))),
        by_labels=by_labels(scope),
        by_node=by_node(scope),
    )


def _condition(requirement: Requirement) -> ContainerCondition:
    key = "namespace" if requirement.key == NAMESPACE_LABEL else requirement.key
    return ContainerCondition(key=key, operator=requirement.operator, values=requirement.values)
