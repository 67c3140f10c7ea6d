"""For which pods and nodes a policy is, by their labels.

    said in the policy                      for whom
    nothing                                 everything, the node's own processes too
    podSelector or containerSelector        containers that they select
    hostSelector: {}                        the node's own processes
    hostSelector: {} and one of the others  both
    TracingPolicyNamespaced                 of all that, the pods of its namespace

The client decides by labels, which agents do not know; agents decide the rest (engine/scopes.py). The trap: an empty
podSelector, `{}`, selects all pods, and so it leaves out the node's own processes.
"""

from collections.abc import Mapping

from kubectl_gadget.policies.model import Labels, Scope

NAMESPACE_LABEL = "k8s:io.kubernetes.pod.namespace"
"""A label that every pod has for podSelectors, so that they can select by namespace."""


def is_for_labels(scope: Scope, namespace: str, labels: Mapping[str, str]) -> bool:
    """Whether the podSelector takes a pod of that namespace with these labels."""
    return selected(scope.pods, {NAMESPACE_LABEL: namespace, **labels})


def is_for_node(scope: Scope, labels: Mapping[str, str]) -> bool:
    """Whether a node with these labels gets the policy at all."""
    return selected(scope.nodes, labels)


def selected(selector: Labels | None, labels: Mapping[str, str]) -> bool:
    """Whether all requirements of a label selector hold; True for none."""
    return all(requirement.accepts(labels) for requirement in selector or ())
