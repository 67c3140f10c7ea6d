"""Names of targets on the command line: a pod, or KIND/NAME for the pods of a workload or service.

The kinds and their short names are kubectl's. This is imported at every TAB key, so it imports nothing.
"""

from collections.abc import Sequence

KINDS = {
    "pod": ("pods", "po"),
    "deployment": ("deployments", "deploy"),
    "replicaset": ("replicasets", "rs"),
    "statefulset": ("statefulsets", "sts"),
    "daemonset": ("daemonsets", "ds"),
    "job": ("jobs",),
    "cronjob": ("cronjobs", "cj"),
    "service": ("services", "svc"),
    "replicationcontroller": ("replicationcontrollers", "rc"),
}
"""Plural, and the short name if there is one."""
_GROUPS = {
    **dict.fromkeys(("deployment", "replicaset", "statefulset", "daemonset"), "apps"),
    **dict.fromkeys(("job", "cronjob"), "batch"),
}
BY_SPELLING = {spelling: kind for kind, names in KINDS.items() for spelling in (kind, *names)}


def kind_of(spelling: str) -> str | None:
    """Returns the kind in KINDS for what stands before the slash: `deploy`, `deployments.apps`, `deployment.v1.apps`.
    None when there is no such kind."""
    name, dot, group = spelling.lower().partition(".")
    kind = BY_SPELLING.get(name)
    if kind is None or not dot:
        return kind
    return kind if group in (_GROUPS.get(kind), f"v1.{_GROUPS.get(kind)}") else None


def workloads(targets: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Returns kind and name of the targets of the form KIND/NAME."""
    split = (target.partition("/") for target in targets if "/" in target)
    return tuple((kind, name) for kind, _, name in split)
