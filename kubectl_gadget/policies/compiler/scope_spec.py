"""What a policy applies to, as agents evaluate it: SCOPE of docs/protocol.md, by the rules of policies.scope_labels.

The trap: agents know names and images of containers but no labels of pods or nodes; the client tells them which scopes
hold for them (session/policies/labels.py).
"""

from kubectl_gadget.kube.label_selectors import Requirement
from kubectl_gadget.policies.model import Scope
from kubectl_gadget.policies.scope_labels import NAMESPACE_LABEL
from kubectl_gadget.wire.policy_messages import ContainerCondition, ScopeSpec


def by_labels(scope: Scope) -> bool:
    """Whether the scope depends on labels of pods."""
    return any(requirement.key != NAMESPACE_LABEL for requirement in scope.pods or ())


def by_node(scope: Scope) -> bool:
    """Whether the scope depends on labels of nodes."""
    return bool(scope.nodes)


def scope_spec(scope: Scope) -> ScopeSpec:
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
