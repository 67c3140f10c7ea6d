"""The objects of a cluster that advice names: pods with their workloads, services with their backends, nodes.

Made from the API's objects, or locally from the names that rows have. The trap: addresses are used again, so of pods
that had the same one, the one that is there last is meant.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kubectl_gadget.kube.pod_identity import mirror_hash

Object = Mapping[str, Any]
Labels = Mapping[str, str]

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
"""Labels that tell one replica, or one generation of them, from others."""
_OF_JOB = frozenset({"job-name", "batch.kubernetes.io/job-name"})
LOCAL_LABEL = "app.kubernetes.io/name"
"""What pods are taken to bear on a machine without a cluster: their own name."""
_SCHEDULED = re.compile(r"(.+)-\d{8,}")
"""A CronJob names its Jobs by the minute, in digits (k8s.io/kubernetes, pkg/controller/cronjob)."""
_API_VERSIONS = {"Pod": "v1", "ReplicationController": "v1", "Job": "batch/v1", "CronJob": "batch/v1"}


@dataclass(frozen=True)
class Workload:
    """What a pod is a replica of: what a user writes and changes."""

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
    """A port that a container names, or one of a service (`target`: where it leads to, a number or a name)."""

    name: str
    protocol: str
    port: int
    target: int | str = 0
    on_node: int = 0
    """nodePort or hostPort: the one of the node's that leads here"""


@dataclass(frozen=True)
class Mount:
    """Where a container mounts a volume, and of which kind that is: emptyDir, configMap, …"""

    container: str
    path: str
    kind: str
    read_only: bool = False


@dataclass(frozen=True)
class Pod:
    """One pod, as far as advice needs it."""

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
    """it will not run again, and its address may have gone to another one"""
    static_uid: str = ""
    """of a static pod: kubelet's own, which its cgroups bear"""
    node: str = ""

    @classmethod
    def from_object(cls, found: Object) -> "Pod":
        """From the API's pod."""
        metadata, spec, status = found["metadata"], found.get("spec") or {}, found.get("status") or {}
        volumes = {volume["name"]: _volume_kind(volume) for volume in spec.get("volumes") or ()}
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
                Mount(container["name"], item["mountPath"], volumes.get(item["name"], ""), bool(item.get("readOnly")))
                for container in containers
                for item in container.get("volumeMounts") or ()
            ),
            init_containers=tuple(container["name"] for container in spec.get("initContainers") or ()),
            ended=status.get("phase") in ("Succeeded", "Failed"),
        )

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Pod":
        """From a recording."""
        lists = {name: tuple(value[name]) for name in ("addresses", "init_containers")}
        ports, mounts = tuple(Port(**item) for item in value["ports"]), tuple(Mount(**item) for item in value["mounts"])
        value = {name: item for name, item in value.items() if name != "started"}  # of recordings of earlier days
        return cls(**{**value, **lists, "ports": ports, "mounts": mounts})

    @property
    def workload(self) -> Workload:
        """What it is a replica of, by its owner's name: no further right is needed to know it."""
        kind, name = self.owner_kind, self.owner_name
        template = self.labels.get("pod-template-hash")
        if kind == "ReplicaSet" and template and name.endswith(f"-{template}"):
            kind, name = "Deployment", name.removesuffix(f"-{template}")
        elif kind == "Job" and (scheduled := _SCHEDULED.fullmatch(name)):
            kind, name = "CronJob", scheduled[1]
        # A static pod belongs to its node, and is written in a file there.
        return (
            Workload(self.namespace, "Pod", self.name) if kind in ("", "Node") else Workload(self.namespace, kind, name)
        )

    @property
    def selecting_labels(self) -> dict[str, str]:
        """Labels that it has in common with other replicas, now and later."""
        dropped = _OF_REPLICA | (_OF_JOB if self.workload.kind == "CronJob" else frozenset())
        return {name: value for name, value in self.labels.items() if name not in dropped}


@dataclass(frozen=True)
class Service:
    """One service: its addresses, and where they lead to."""

    namespace: str
    name: str
    addresses: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    selector: dict[str, str] = field(default_factory=dict)
    backends: tuple[tuple[str, str, int], ...] = ()
    """of one without a selector: address, protocol, port"""

    @classmethod
    def from_object(cls, found: Object, slices: Iterable[Object] = ()) -> "Service":
        """From the API's service; `slices` are the EndpointSlices of its namespace."""
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

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Service":
        """From a recording."""
        ports = tuple(Port(**item) for item in value["ports"])
        backends = tuple((address, protocol, port) for address, protocol, port in value["backends"])
        return cls(**{**value, "addresses": tuple(value["addresses"]), "ports": ports, "backends": backends})


@dataclass(frozen=True)
class Node:
    """One node and its addresses."""

    name: str
    addresses: tuple[str, ...] = ()
    pod_blocks: tuple[str, ...] = ()
    """from which its pods have their addresses"""

    @classmethod
    def from_object(cls, found: Object) -> "Node":
        """From the API's node."""
        addresses = (found.get("status") or {}).get("addresses") or ()
        wanted = ("InternalIP", "ExternalIP")
        spec = found.get("spec") or {}
        return cls(
            found["metadata"]["name"],
            tuple(item["address"] for item in addresses if item["type"] in wanted),
            tuple(spec.get("podCIDRs") or filter(None, [spec.get("podCIDR")])),
        )

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Node":
        """From a recording."""
        return cls(value["name"], tuple(value["addresses"]), tuple(value.get("pod_blocks", ())))


@dataclass
class Inventory:
    """All objects, in the order in which they came."""

    pods: list[Pod] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    namespaces: dict[str, dict[str, str]] = field(default_factory=dict)
    """their labels"""
    _by_name: dict[tuple[str, str], Pod] = field(default_factory=dict, compare=False)
    _indexed: int = field(default=0, compare=False)
    """how many pods are in `_by_name`"""

    def pod(self, namespace: str, name: str) -> Pod | None:
        """The last pod of this name. Pods may be added to the list, and changed by the methods here alone."""
        for pod in self.pods[self._indexed :]:
            self._by_name[pod.namespace, pod.name] = pod
        self._indexed = len(self.pods)
        return self._by_name.get((namespace, name))

    def static_pods(self) -> dict[str, Pod]:
        """By the UID that their containers have, without one that another pod has or claims, too."""
        claims: dict[str, dict[tuple[str, str], Pod]] = {}
        for pod in self.pods:
            if pod.static_uid:
                claims.setdefault(pod.static_uid, {})[pod.namespace, pod.name] = pod
        uids = {pod.uid for pod in self.pods}
        single = {uid: next(iter(found.values())) for uid, found in claims.items() if len(found) == 1}
        return {uid: pod for uid, pod in single.items() if uid not in uids}

    def workload(self, namespace: str, pod: str) -> Workload:
        """What a pod is a replica of; itself, when it is not known."""
        found = self.pod(namespace, pod)
        return found.workload if found else Workload(namespace, "Pod", pod)

    def add_local(self, namespace: str, name: str, address: str | None = None) -> None:
        """A pod that is known by its name alone, from a machine without a cluster."""
        known = self.pod(namespace, name)
        if known is None:
            known = Pod(namespace, name, labels={LOCAL_LABEL: name})
            self.pods.append(known)
        if address is not None and address not in known.addresses:
            changed = replace(known, addresses=(*known.addresses, address))
            self.pods[self.pods.index(known)] = self._by_name[namespace, name] = changed

    def add(self, other: "Inventory") -> None:
        """Adds the objects of another one."""
        self.pods += other.pods
        self.services += other.services
        self.nodes += other.nodes
        self.namespaces.update(other.namespaces)
        self.forget_doubles()

    def forget_doubles(self) -> None:
        """Of objects that several recordings have, the last one is kept."""
        self.pods = list({(pod.uid or f"{pod.namespace}/{pod.name}"): pod for pod in self.pods}.values())
        self._by_name, self._indexed = {}, 0
        self.services = list({(item.namespace, item.name): item for item in self.services}.values())
        self.nodes = list({item.name: item for item in self.nodes}.values())


def _volume_kind(volume: Object) -> str:
    return next((key for key in volume if key != "name"), "")


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
"""The label by which an EndpointSlice names its service."""
