"""For whom a policy is, as the agents judge it: SCOPE of docs/protocol.md, by the rules of policies.workloads.

The trap: agents know names and images of containers, and no labels of pods or nodes.
"""

from typing import Any

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.model import Policy, Requirement, Scope
from kubectl_gadget.policies.workloads import NAMESPACE_LABEL


def check(policy: Policy) -> None:
    """Raises UsageError when the agents cannot judge it."""
    if policy.scope.nodes:
        raise UsageError(f"policy {policy.name}: nodeSelector is not supported yet", "--node NAME")
    for requirement in policy.scope.pods or ():
        if requirement.key != NAMESPACE_LABEL:
            what = f"policy {policy.name}: podSelector with the label {requirement.key} is not supported yet"
            raise UsageError(what, f"a podSelector of {{}}, and -l {requirement.key}=… beside -f")


def scope_spec(scope: Scope) -> dict[str, Any]:
    """A SCOPE."""
    chosen = scope.pods is not None or scope.containers is not None
    only_host = scope.host and not chosen
    return {
        "pods": not only_host or scope.namespace is not None,
        "host": scope.namespace is None and (scope.host or not chosen),
        "namespaces": None if scope.namespace is None else [scope.namespace],
        "containers": [_line(requirement) for requirement in (*(scope.pods or ()), *(scope.containers or ()))],
    }


def _line(requirement: Requirement) -> dict[str, Any]:
    key = "namespace" if requirement.key == NAMESPACE_LABEL else requirement.key
    return {"key": key, "operator": requirement.operator, "values": list(requirement.values)}
