"""Which pods and nodes a policy applies to, by their labels.

    in the policy                           applies to
    nothing                                 everything, including the node's own processes
    podSelector or containerSelector        the containers that they select
    hostSelector: {}                        the node's own processes
    hostSelector: {} and one of the others  both
    TracingPolicyNamespaced                 of all these, the pods of its namespace

The client evaluates labels, which agents do not know; agents evaluate the rest (agent/policies/scopes.py). The trap: an
empty podSelector, `{}`, selects all pods and therefore excludes the node's own processes.
"""

from collections.abc import Mapping

from kubectl_gadget.policies.model import Labels, Scope

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
