"""Options for reaching a cluster, selecting in it, and starting agents there. The values were already checked.

This is imported at every TAB key, so it imports nothing of this package.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class KubeOptions:
    """kubectl's own global flags. None means: as in the kubeconfig."""

    kubeconfig: str | None = None
    context: str | None = None
    cluster: str | None = None
    user: str | None = None
    server: str | None = None
    token: str | None = None
    as_user: str | None = None
    as_groups: tuple[str, ...] = ()
    request_timeout: float | None = None
    """seconds, per API call; does not apply to streams"""
    certificate_authority: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None
    insecure_skip_tls_verify: bool = False
    tls_server_name: str | None = None


@dataclass(frozen=True)
class Selection:
    """The selection of containers to trace."""

    namespace: str | None = None
    """None: the context's namespace (cluster), or any (local)"""
    all_namespaces: bool = False
    pods: tuple[str, ...] = ()
    workloads: tuple[tuple[str, str], ...] = ()
    """kind and name, with a kind of KINDS: their pods, in one namespace, in addition to `pods`"""
    selector: str | None = None
    """label selector in kubectl's notation, including set-based ones"""
    containers: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    node_selector: str | None = None
    """labels of nodes, in the notation of `selector`"""
    host: bool = False
    """include host processes"""
    every_node: bool = False
    """all nodes take part from the beginning, so that a pod is traced from its start wherever it is scheduled"""
    own_processes: bool = False
    """include agents, and without a cluster also their client"""

    def described(self, local: bool = False) -> str:
        """Describes the selection in messages: `namespace shop, pods app=cart, nodes n1`."""
        parts = ["this machine"] if local else []
        if self.namespace is not None:
            parts.append(f"namespace {self.namespace}")
        elif not local:
            parts.append("all namespaces" if self.all_namespaces else "the current namespace")
        if self.selector:
            parts.append(f"pods {self.selector}")
        pods = (*(f"{kind}/{name}" for kind, name in self.workloads), *self.pods)
        for name, chosen in (("pods", pods), ("containers", self.containers), ("nodes", self.nodes)):
            if chosen:
                parts.append(f"{name} {' '.join(chosen)}")
        if self.node_selector:
            parts.append(f"nodes with {self.node_selector}")
        if self.host:
            parts.append("with processes of the host")
        return ", ".join(parts)


@dataclass(frozen=True)
class AgentOptions:
    """Options for starting agents in a cluster."""

    image: str | None = None
    image_mirror: str | None = None
    """replaces the image's registry"""
    image_pull_policy: str | None = None
    image_pull_secret: str | None = None
    namespace: str = "kubectl-gadget"
    privileged: bool = False
    start_timeout: float = 60.0
    """seconds"""
    idle_timeout: float = 600.0
    """seconds after which an on-demand agent pod without a session ends by itself"""
    pins: bool = False
    """on-demand pods can access pinned policies, to remove them; never to put any in force"""
    bcc: bool = False
    """pods for bcc tools: another image, privileged, with the node's kernel headers; never resident ones"""
    bcc_tool: str = ""
    """the tool, for the API server's audit log; empty: agents are only asked which tools they have"""
    contained: bool = False
    """resident agents that run only gadgets of their own catalogue, for observers"""
    enforcing: bool = False
    """resident agents that installed policies depend on"""


# Names of targets on the command line: a pod, or KIND/NAME for the pods of a workload or service. The kinds and their
# short names are kubectl's.


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
