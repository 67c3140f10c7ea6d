"""Reads what a policy or a selector applies to: label selectors, and the host."""

from kubectl_gadget.kube.label_selectors import OPERATORS, Requirement
from kubectl_gadget.policies.model import Labels, Scope
from kubectl_gadget.yaml_reader import Part, Problems, one_of

CONTAINER_KEYS = ("name", "repo")


def read_scope(part: Part, problems: Problems, namespace: str | None = None) -> Scope:
    """The scope that the fields of `part` give; errors are added to `problems`."""
    host = part.part("hostSelector")
    if host is not None and list(host.names()):
        problems.add(host.place, "must be {}, for the processes of the node, or absent: it selects no labels")
    if host is not None and namespace is not None:
        problems.add(host.place, "is not for a TracingPolicyNamespaced, which is for pods")
    containers = read_labels(part, "containerSelector", problems)
    for requirement in containers or ():
        if requirement.key not in CONTAINER_KEYS:
            problems.add(part.at("containerSelector"), f"has the key {requirement.key!r}; expected name or repo")
    return Scope(
        namespace=namespace,
        pods=read_labels(part, "podSelector", problems),
        containers=containers,
        host=host is not None,
        nodes=read_labels(part, "nodeSelector", problems),
    )


def read_labels(part: Part, key: str, problems: Problems) -> Labels | None:
    """One label selector; None when it is not set."""
    selector = part.part(key)
    if selector is None:
        return None
    found = [Requirement(name, "In", (value,)) for name, value in selector.text_map("matchLabels").items()]
    for expression in selector.parts("matchExpressions"):
        operator = one_of(expression.text("operator"), OPERATORS, "In")
        values = expression.texts("values")
        if bool(values) != (operator in ("In", "NotIn")):
            problems.add(expression.place, f"{operator} takes {'no ' if values else ''}values")
        else:
            found.append(Requirement(expression.text("key"), operator, values))
    return tuple(found)
