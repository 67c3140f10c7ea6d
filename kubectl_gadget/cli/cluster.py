"""The cluster for commands: the connection, and the namespace of objects that do not name one.

Note: the kubeconfig is read only when needed, so that objects with a namespace can be checked without a kubeconfig, or
with a broken one.
"""

from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, TypeVar

from kubectl_gadget.cli.flags import ClusterFlags, ScopeFlags
from kubectl_gadget.cli.printing import say
from kubectl_gadget.errors import UsageError

if TYPE_CHECKING:
    from kubectl_gadget.kube.requests import Api
    from kubectl_gadget.policies.model import Policy


Answer = TypeVar("Answer")


def wait_for(work: Coroutine[object, None, Answer]) -> Answer:
    """Runs `work` to completion. asyncio is imported here, since `deploy --help` does not need it."""
    import asyncio

    return asyncio.run(work)


def connect(cluster: ClusterFlags) -> "Api":
    """The API server that these flags and the kubeconfig specify. Does not connect yet; prints warnings to standard
    error.

    Raises ClusterError or UsageError if the kubeconfig does not specify one.
    """
    from kubectl_gadget.kube.kubeconfig import load
    from kubectl_gadget.kube.requests import Api

    return Api(load(cluster.options()), lambda warning: say(f"Warning: {warning}"))


# The namespace of objects that do not name one, like in kubectl: -n, else the context's, else `default`

_DEFAULT = "default"


def chosen_namespace(scope: ScopeFlags, cluster: ClusterFlags, local: bool | None = False) -> str | None:
    """The namespace of -n, else the context's; None without a cluster. Raises ClusterError or UsageError if the
    kubeconfig is invalid."""
    from kubectl_gadget.kube.kubeconfig import has_kubeconfig, load

    if scope.namespace or local or not has_kubeconfig(cluster.options()):
        return scope.namespace
    return load(cluster.options()).namespace


def own_namespace(scope: ScopeFlags, cluster: ClusterFlags, local: bool | None = False) -> str:
    """Like chosen_namespace(), but `default` without a cluster."""
    return chosen_namespace(scope, cluster, local) or _DEFAULT


def say_own(policies: "Iterable[Policy]") -> None:
    """Reports the namespace of policies that do not name one."""
    for policy in policies:
        if policy.names_no_namespace:
            say(f"{policy.place.position}: namespace: {policy.namespace}, since the policy has none")


def warn_of_others(what: str, namespaces: Iterable[str | None], chosen: str) -> None:
    """Warns about policies, described as `what`, that apply to pods outside the run; None means all."""
    others = set(namespaces) - {chosen, None}
    for namespace in sorted(map(str, others)):
        say(f"warning: {what} of namespace {namespace} have no effect here: the run is limited to pods of {chosen}")
    if others:
        say("try: -A, or -n with the namespace")


def refuse_others(policies: "Iterable[Policy]", given: str | None) -> None:
    """Raises UsageError if -n contradicts the namespace of a policy, which kubectl rejects as well."""
    others = [policy for policy in policies if given and policy.namespace not in (given, None)]
    lines = [
        f"{one.place.file}: the policy {one.name} has the namespace {one.namespace}, but -n is {given}"
        for one in others
    ]
    if lines:
        raise UsageError("\n       ".join(lines), "leave out -n, or use the policy's namespace")
