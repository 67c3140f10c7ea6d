"""The namespaces that agents of one kind share: the one that is configured, and a second one for runs on demand.

Kubernetes takes at least 5 s to delete a namespace, and nothing can be created in it meanwhile. A run that starts then
uses the second one.
"""

_SECOND = "-2"


def second(namespace: str) -> str:
    """Returns the name of the second namespace."""
    return namespace + _SECOND


def both(namespace: str) -> frozenset[str]:
    """Returns all namespaces in which agents may run, if one runs in `namespace`; none for "" (not in a pod)."""
    return frozenset({namespace, namespace.removesuffix(_SECOND), second(namespace)}) if namespace else frozenset()
