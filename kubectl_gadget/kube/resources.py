"""The kinds of objects requested from the API server, and their URL paths.

Note: a namespaced resource without a namespace means all namespaces, which only list and watch allow.
"""

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

Object = dict[str, Any]
"""One Kubernetes object, as parsed JSON."""
GONE = "deletedAt"
"""The member of a deleted object with the time of its deletion, as the client saw it (kube/informer.py)."""


@dataclass(frozen=True)
class Resource:
    """One kind in one API version."""

    plural: str
    kind: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """The name that `kubectl auth can-i` takes."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Returns the URL path of all objects, of one, or of its subresource."""
        path = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        if self.namespaced and namespace is not None:
            path += f"/namespaces/{quote(namespace, safe='')}"
        path += f"/{self.plural}"
        for part in (name, subresource):
            if part is not None:
                path += f"/{quote(part, safe='')}"
        return path


PODS = Resource("pods", "Pod")
NODES = Resource("nodes", "Node", namespaced=False)
NAMESPACES = Resource("namespaces", "Namespace", namespaced=False)
SERVICES = Resource("services", "Service")
ENDPOINT_SLICES = Resource("endpointslices", "EndpointSlice", "discovery.k8s.io")
NETWORK_POLICIES = Resource("networkpolicies", "NetworkPolicy", "networking.k8s.io")
IP_ADDRESSES = Resource("ipaddresses", "IPAddress", "networking.k8s.io", namespaced=False)
SERVICE_ACCOUNTS = Resource("serviceaccounts", "ServiceAccount")
CONFIG_MAPS = Resource("configmaps", "ConfigMap")
EVENTS = Resource("events", "Event")
DAEMON_SETS = Resource("daemonsets", "DaemonSet", "apps")
DEPLOYMENTS = Resource("deployments", "Deployment", "apps")
REPLICA_SETS = Resource("replicasets", "ReplicaSet", "apps")
STATEFUL_SETS = Resource("statefulsets", "StatefulSet", "apps")
REPLICATION_CONTROLLERS = Resource("replicationcontrollers", "ReplicationController")
JOBS = Resource("jobs", "Job", "batch")
CRON_JOBS = Resource("cronjobs", "CronJob", "batch")
ROLES = Resource("roles", "Role", "rbac.authorization.k8s.io")
ROLE_BINDINGS = Resource("rolebindings", "RoleBinding", "rbac.authorization.k8s.io")
CLUSTER_ROLES = Resource("clusterroles", "ClusterRole", "rbac.authorization.k8s.io", namespaced=False)
CLUSTER_ROLE_BINDINGS = Resource(
    "clusterrolebindings", "ClusterRoleBinding", "rbac.authorization.k8s.io", namespaced=False
)
ADMISSION_POLICIES = Resource(
    "validatingadmissionpolicies", "ValidatingAdmissionPolicy", "admissionregistration.k8s.io", namespaced=False
)
ADMISSION_POLICY_BINDINGS = Resource(
    "validatingadmissionpolicybindings",
    "ValidatingAdmissionPolicyBinding",
    "admissionregistration.k8s.io",
    namespaced=False,
)
SELF_REVIEWS = Resource("selfsubjectreviews", "SelfSubjectReview", "authentication.k8s.io", namespaced=False)
ACCESS_REVIEWS = Resource(
    "selfsubjectaccessreviews", "SelfSubjectAccessReview", "authorization.k8s.io", namespaced=False
)

BY_KIND = {
    resource.kind: resource
    for resource in (
        *(NAMESPACES, CONFIG_MAPS, DAEMON_SETS, ROLES, ROLE_BINDINGS, CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS),
        *(ADMISSION_POLICIES, ADMISSION_POLICY_BINDINGS),
    )
}
"""The kinds that a deployment may contain."""
