"""The cluster objects that advice refers to: pods with their workloads, services with their backends, nodes.

Built from the API's objects, or, without a cluster, from the names in rows. The trap: addresses are reused, so when
several pods had the same address, the most recent one is meant.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kubectl_gadget.kube.pod_identity import mirror_hash

Object = Mapping[str, Any]

_OF_REPLICA = frozenset(
    {
        "pod-template-hash",
        "controller-revision-hash",
        "pod-template-generation",
        "statefulset.kubernetes.io/pod-name",
        "apps.kubernetes.io/pod-index",
        "controller-uid",
        "batch.kubernetes.io/controller-uid",
        "batch.kubernetes.io/job-completion-index",
    }
)
"""Labels that distinguish one replica, or one generation of replicas, from others."""
_OF_JOB = frozenset({"job-name", "batch.kubernetes.io/job-name"})
LOCAL_LABEL = "app.kubernetes.io/name"
"""The label that pods are assumed to have on a machine without a cluster; its value is their own name."""
_SCHEDULED = re.compile(r"(.+)-\d{8,}")
"""A CronJob appends the scheduled minute, in digits, to the names of its Jobs (k8s.io/kubernetes,
pkg/controller/cronjob)."""
_API_VERSIONS = {"Pod": "v1", "ReplicationController": "v1", "Job": "batch/v1", "CronJob": "batch/v1"}


@dataclass(frozen=True)
class Workload:
    """The object that a pod is a replica of; the one that a user writes and edits."""

    namespace: str
    kind: str
    name: str

    @property
    def api_version(self) -> str:
        return _API_VERSIONS.get(self.kind, "apps/v1")

    def __str__(self) -> str:
        return f"{self.namespace}/{self.kind.lower()}/{self.name}"


@dataclass(frozen=True)
class Port:
    """A named port of a container, or a port of a service (`target`: the port it forwards to, a number or a name)."""

    name: str
    protocol: str
    port: int
    target: int | str = 0
    on_node: int = 0
    """nodePort or hostPort: the node's port that forwards to this one"""


@dataclass(frozen=True)
class Mount:
    """Where a container mounts a volume."""

    container: str
    path: str


@dataclass(frozen=True)
class Pod:
    """The parts of one pod that advice needs."""

    namespace: str
    name: str
    uid: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()
    host_network: bool = False
    owner_kind: str = ""
    owner_name: str = ""
    ports: tuple[Port, ...] = ()
    mounts: tuple[Mount, ...] = ()
    init_containers: tuple[str, ...] = ()
    ended: bool = False
    """the pod will not run again, and its address may already belong to another one"""
    static_uid: str = ""
    """of a static pod: the kubelet's own UID, which stands in its cgroups"""
    node: str = ""

    @classmethod
    def from_object(cls, found: Object) -> "Pod":
        """Reads a pod of the API."""
        metadata, spec, status = found["metadata"], found.get("spec") or {}, found.get("status") or {}
        containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
        owner: Object = next((item for item in metadata.get("ownerReferences") or () if item.get("controller")), {})
        addresses = [item["ip"] for item in status.get("podIPs") or () if item.get("ip")] or [status.get("podIP")]
        return cls(
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata["uid"],
            static_uid=mirror_hash(found),
            labels=dict(metadata.get("labels") or {}),
            addresses=tuple(address for address in addresses if address),
            node=spec.get("nodeName", ""),
            host_network=bool(spec.get("hostNetwork")),
            owner_kind=owner.get("kind", ""),
            owner_name=owner.get("name", ""),
            ports=tuple(
                Port(
                    port.get("name", ""),
                    port.get("protocol", "TCP"),
                    port["containerPort"],
                    on_node=port.get("hostPort") or 0,
                )
                for container in containers
                for port in container.get("ports") or ()
            ),
            mounts=tuple(
                Mount(container["name"], item["mountPath"])
                for container in containers
                for item in container.get("volumeMounts") or ()
            ),
            init_containers=tuple(container["name"] for container in spec.get("initContainers") or ()),
            ended=status.get("phase") in ("Succeeded", "Failed"),
        )

    @property
    def workload(self) -> Workload:
        """Returns what the pod is a replica of, by its owner's name; this needs no further permission."""
        kind, name = self.owner_kind, self.owner_name
        template = self.labels.get("pod-template-hash")
        if kind == "ReplicaSet" and template and name.endswith(f"-{template}"):
            kind, name = "Deployment", name.removesuffix(f"-{template}")
        elif kind == "Job" and (scheduled := _SCHEDULED.fullmatch(name)):
            kind, name = "CronJob", scheduled[1]
        # A static pod belongs to its node, where a file defines it.
        return (
            Workload(self.namespace, "Pod", self.name) if kind in ("", "Node") else Workload(self.namespace, kind, name)
        )

    @property
    def selecting_labels(self) -> dict[str, str]:
        """Returns the labels that the pod shares with its replicas, also with future ones."""
        dropped = _OF_REPLICA | (_OF_JOB if self.workload.kind == "CronJob" else frozenset())
        return {name: value for name, value in self.labels.items() if name not in dropped}


@dataclass(frozen=True)
class Service:
    """A service: its addresses, and its backends."""

    namespace: str
    name: str
    addresses: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    selector: dict[str, str] = field(default_factory=dict)
    backends: tuple[tuple[str, str, int], ...] = ()
    """of a service without a selector: address, protocol, port"""

    @classmethod
    def from_object(cls, found: Object, slices: Iterable[Object] = ()) -> "Service":
        """Reads a service of the API; `slices` are the EndpointSlices of its namespace."""
        metadata, spec = found["metadata"], found.get("spec") or {}
        balancer = ((found.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
        addresses = [
            *(spec.get("clusterIPs") or [spec.get("clusterIP")]),
            *(spec.get("externalIPs") or ()),
            *(item.get("ip") for item in balancer),
        ]
        selector = dict(spec.get("selector") or {})
        backends = () if selector else tuple(_backends(metadata["name"], metadata["namespace"], slices))
        return cls(
            namespace=metadata["namespace"],
            name=metadata["name"],
            addresses=tuple(address for address in addresses if address and address != "None"),
            ports=tuple(
                Port(
                    port.get("name", ""),
                    port.get("protocol", "TCP"),
                    port["port"],
                    port.get("targetPort") or 0,
                    port.get("nodePort") or 0,
                )
                for port in spec.get("ports") or ()
            ),
            selector=selector,
            backends=backends,
        )


@dataclass(frozen=True)
class Node:
    """One node and its addresses."""

    name: str
    addresses: tuple[str, ...] = ()
    pod_blocks: tuple[str, ...] = ()
    """address ranges of its pods"""

    @classmethod
    def from_object(cls, found: Object) -> "Node":
        """Reads a node of the API."""
        addresses = (found.get("status") or {}).get("addresses") or ()
        wanted = ("InternalIP", "ExternalIP")
        spec = found.get("spec") or {}
        return cls(
            found["metadata"]["name"],
            tuple(item["address"] for item in addresses if item["type"] in wanted),
            tuple(spec.get("podCIDRs") or filter(None, [spec.get("podCIDR")])),
        )


@dataclass
class Inventory:
    """All objects, in the order in which they were added."""

    pods: list[Pod] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    namespaces: dict[str, dict[str, str]] = field(default_factory=dict)
    """their labels, by name"""
    _by_name: dict[tuple[str, str], Pod] = field(default_factory=dict, compare=False)
    _indexed: int = field(default=0, compare=False)
    """how many pods are indexed in `_by_name`"""

    def pod(self, namespace: str, name: str) -> Pod | None:
        """Returns the last pod of this name. Callers may append pods to the list, but not change it otherwise."""
        for pod in self.pods[self._indexed :]:
            self._by_name[pod.namespace, pod.name] = pod
        self._indexed = len(self.pods)
        return self._by_name.get((namespace, name))

    def static_pods(self) -> dict[str, Pod]:
        """Returns static pods by their containers' UID, without UIDs that another pod has or claims as well."""
        claims: dict[str, dict[tuple[str, str], Pod]] = {}
        for pod in self.pods:
            if pod.static_uid:
                claims.setdefault(pod.static_uid, {})[pod.namespace, pod.name] = pod
        uids = {pod.uid for pod in self.pods}
        single = {uid: next(iter(found.values())) for uid, found in claims.items() if len(found) == 1}
        return {uid: pod for uid, pod in single.items() if uid not in uids}

    def workload(self, namespace: str, pod: str) -> Workload:
        """Returns what a pod is a replica of, or the pod itself when it is not known."""
        found = self.pod(namespace, pod)
        return found.workload if found else Workload(namespace, "Pod", pod)

    def add_local(self, namespace: str, name: str, address: str | None = None) -> None:
        """Adds a pod of a machine without a cluster, where only its name is known."""
        known = self.pod(namespace, name)
        if known is None:
            known = Pod(namespace, name, labels={LOCAL_LABEL: name})
            self.pods.append(known)
        if address is not None and address not in known.addresses:
            changed = replace(known, addresses=(*known.addresses, address))
            self.pods[self.pods.index(known)] = self._by_name[namespace, name] = changed

    def add(self, other: "Inventory") -> None:
        """Adds the objects of another inventory."""
        self.pods += other.pods
        self.services += other.services
        self.nodes += other.nodes
        self.namespaces.update(other.namespaces)
        self.forget_doubles()

    def forget_doubles(self) -> None:
        """Keeps only the last copy of each object, for objects that several recordings have."""
        self.pods = list({(pod.uid or f"{pod.namespace}/{pod.name}"): pod for pod in self.pods}.values())
        self._by_name, self._indexed = {}, 0
        self.services = list({(item.namespace, item.name): item for item in self.services}.values())
        self.nodes = list({item.name: item for item in self.nodes}.values())


def _backends(service: str, namespace: str, slices: Iterable[Object]) -> Iterable[tuple[str, str, int]]:
    for found in slices:
        metadata = found["metadata"]
        if metadata["namespace"] != namespace or (metadata.get("labels") or {}).get(SLICE_OF) != service:
            continue
        for endpoint in found.get("endpoints") or ():
            for address in endpoint.get("addresses") or ():
                for port in found.get("ports") or ():
                    yield address, port.get("protocol", "TCP"), port["port"]


SLICE_OF = "kubernetes.io/service-name"
"""The label of an EndpointSlice that names its service."""
