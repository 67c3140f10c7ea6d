"""The cluster's objects by what the rows of a run name: pods by their containers, workloads, services, nodes.

Note: a static pod's containers have the kubelet's UID, not the API's. Only an annotation of its mirror pod has that
UID, and anyone who may create a pod may write any annotation, owner and node into it: NodeRestriction limits kubelets,
not users. So `metadata.uid`, which the API server assigns, always wins; a mirror pod is found by NAMESPACE/NAME, which
the kubelet gives its containers and no two pods share; and the annotation counts only where a container has no names.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Generic, NamedTuple, TypeVar

from kubectl_gadget.kube.informer import Follower, Objects
from kubectl_gadget.kube.resources import ENDPOINT_SLICES, NAMESPACES, NODES, PODS, SERVICES, Object, Resource

Value = TypeVar("Value")

_HASH = "kubernetes.io/config.hash"
_MIRROR = "kubernetes.io/config.mirror"


def mirror_hash(pod: Object) -> str:
    """Returns the UID that the containers of a mirror pod have, or "" for every other pod.

    The kubelet writes the hash into both annotations and makes the node the controller of the pod
    (k8s.io/kubernetes, pkg/kubelet/pod/mirror_client.go). A pod for which one of these differs is not a mirror pod.
    """
    metadata, node = pod["metadata"], (pod.get("spec") or {}).get("nodeName")
    annotations = metadata.get("annotations") or {}
    hash = annotations.get(_HASH)
    if not node or not hash or annotations.get(_MIRROR) != hash:
        return ""
    owners = metadata.get("ownerReferences") or ()
    by_node = (
        owner.get("kind") == "Node"
        and owner.get("apiVersion") == "v1"
        and owner.get("name") == node
        and owner.get("controller") is True
        for owner in owners
    )
    return str(hash) if any(by_node) else ""


def full_name(pod: Object) -> str:
    """Returns NAMESPACE/NAME."""
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def container_key(pod: Object) -> str:
    """Returns the key by which an agent finds the pod's containers: the UID that the API server assigned, or
    NAMESPACE/NAME for a mirror pod, whose containers have another UID."""
    return full_name(pod) if mirror_hash(pod) else str(pod["metadata"]["uid"])


class _Known(NamedTuple):
    name: str
    hash: str

    def is_found_by_name(self, uid: str) -> bool:
        """True if the pod is a static pod, or comes from a file of objects, where its name takes the place of a UID."""
        return bool(self.hash) or uid == self.name


class PodValues(Generic[Value]):
    """One value per pod, looked up by what a container reports. One thread may change it while others read."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        """by `metadata.uid`"""
        self._values: dict[str, Value] = {}
        """by `metadata.uid`"""
        self._by_name: dict[str, str] = {}
        """the `metadata.uid` of the last pod of that name"""
        self._claims: dict[str, dict[str, str]] = {}
        """`metadata.uid` of mirror pods: by hash, then by NAMESPACE/NAME"""

    def put(self, pod: Object, value: Value) -> None:
        """Sets the value for a pod in its present state."""
        uid = pod["metadata"]["uid"]
        self.forget(uid)
        known = self._known[uid] = _Known(full_name(pod), mirror_hash(pod))
        self._values[uid] = value
        self._by_name[known.name] = uid
        if known.hash:
            self._claims.setdefault(known.hash, {})[known.name] = uid

    def change(self, uid: str, value: Value) -> None:
        """Replaces the value of a known pod."""
        if uid in self._known:
            self._values[uid] = value

    def forget(self, uid: str) -> None:
        """Removes the pod with this `metadata.uid`. Another pod may already have its name."""
        known = self._known.pop(uid, None)
        if known is None:
            return
        del self._values[uid]
        if self._by_name.get(known.name) == uid:
            del self._by_name[known.name]
        claims = self._claims.get(known.hash, {})
        if claims.get(known.name) == uid:
            del claims[known.name]
            if not claims:
                del self._claims[known.hash]

    def of(self, uid: str, name: str) -> Value | None:
        """Returns the value for the pod of a container with this pod UID and NAMESPACE/NAME; each is "" when unknown.
        Returns None when the pod is not known.

        When the container has a UID, the name alone is enough for static pods only: a pod that replaces another one may
        have the same name.
        """
        found = uid if uid in self._known else self._named(name) if not uid or name else self._claimed(uid)
        if found is None or (uid and found != uid and not self._known[found].is_found_by_name(found)):
            return None
        return self._values[found]

    def _named(self, name: str) -> str | None:
        return self._by_name.get(name)

    def _claimed(self, hash: str) -> str | None:
        claims = self._claims.get(hash, {})
        return next(iter(claims.values())) if len(claims) == 1 else None


# Pods with their workloads, services with their backends, nodes.


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
    """The place where a container mounts a volume."""

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
    probed: tuple[int, ...] = ()
    """ports that the kubelet's probes connect to"""

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
            probed=tuple(sorted(set(chain.from_iterable(map(_probed, containers))))),
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

    def own_addresses(self) -> Iterator[str]:
        """Yield the node's addresses, and the first one of its pods' block, which most network plugins assign to the
        node's own end: probes come from there."""
        yield from self.addresses
        for block in map(ipaddress.ip_network, self.pod_blocks):
            if block.num_addresses > 1:
                yield str(block[1])


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


def _probed(container: Object) -> Iterator[int]:
    """Yield the ports of the container to which its probes connect."""
    ports = {port.get("name"): port["containerPort"] for port in container.get("ports") or ()}
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        probe = container.get(name) or {}
        for how in ("httpGet", "tcpSocket", "grpc"):
            call = probe.get(how) or {}
            port = ports.get(call.get("port"), call.get("port"))
            if isinstance(port, int) and not call.get("host"):
                yield port


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


# All objects of the cluster that existed at any time during a run or a recording, including deleted ones. A cluster
# may have ten thousand pods and changes all the time, so of each object only what an Inventory has is kept, and only
# objects that have changed are read again.


WITH_ADDRESSES = (PODS, SERVICES, ENDPOINT_SLICES, NODES)
_FIRST_SECONDS, _KEEP_SECONDS = 20.0, 600.0
_READERS: Mapping[Resource, Callable[[Object], Any]] = {
    PODS: Pod.from_object,
    NODES: Node.from_object,
    NAMESPACES: lambda item: (item["metadata"]["name"], dict(item["metadata"].get("labels") or {})),
}


class SeenInventory:
    """Objects of `kinds`, in all namespaces or in `namespace`."""

    def __init__(self, kinds: Sequence[Resource] = WITH_ADDRESSES, namespace: str | None = None) -> None:
        self._kinds = tuple(kinds)
        self._namespace = namespace
        self._present: dict[Resource, dict[str, Object]] = {kind: {} for kind in _READERS}
        self._seen: dict[Resource, dict[str, Any]] = {kind: {} for kind in _READERS}
        self._services: dict[str, Service] = {}
        self._made: Inventory | None = None

    def follower(self, missing: str) -> Follower:
        """Follows them during a run; `missing` as in Follower."""
        return Follower(
            self._kinds, self._take, _FIRST_SECONDS, _KEEP_SECONDS, missing=missing, namespace=self._namespace
        )

    def inventory(self) -> Inventory:
        """All of them; of several with one name, the last counts. The same object until something changes."""
        if self._made is None:
            pods, nodes, namespaces = (list(self._seen[kind].values()) for kind in (PODS, NODES, NAMESPACES))
            self._made = Inventory(pods, list(self._services.values()), nodes, dict(namespaces))
        return self._made

    def _take(self, found: Objects) -> Callable[[], object]:
        wanted = {kind: self._wanted(found.get(kind, ())) for kind in self._kinds}
        new = {
            kind: {
                uid: read(item)
                for uid, item in wanted.get(kind, {}).items()
                if self._present[kind].get(uid) is not item
            }
            for kind, read in _READERS.items()
        }
        services = {}
        if SERVICES in wanted:
            slices = slices_of(wanted.get(ENDPOINT_SLICES, {}).values())
            services = {uid: service_of(item, slices) for uid, item in wanted[SERVICES].items()}

        def commit() -> None:
            for kind, read in new.items():
                self._present[kind] = wanted.get(kind, {})
                self._seen[kind].update(read)
            self._services.update(services)
            self._made = None

        return commit

    def _wanted(self, items: Sequence[Object]) -> dict[str, Object]:
        return {
            item["metadata"]["uid"]: item
            for item in items
            if self._namespace is None or item["metadata"].get("namespace", self._namespace) == self._namespace
        }


Slices = Mapping[tuple[str, str], Sequence[Object]]
"""EndpointSlices by the namespace and name of their service."""


def slices_of(items: Any) -> Slices:
    """Arranges EndpointSlices."""
    found: dict[tuple[str, str], list[Object]] = {}
    for item in items:
        metadata = item["metadata"]
        service = (metadata.get("labels") or {}).get(SLICE_OF, "")
        found.setdefault((metadata["namespace"], service), []).append(item)
    return found


def service_of(item: Object, slices: Slices) -> Service:
    """Reads a service of the API, with its slices."""
    return Service.from_object(item, slices.get((item["metadata"]["namespace"], item["metadata"]["name"]), ()))
