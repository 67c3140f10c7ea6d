"""Finds which object of the cluster has an address: a pod, service, node, or the API server.

Addresses are reused, so a pod's address belongs to it only until its containers have ended: rows are named by their
time. Pods on the host's network have the node's address, so that address belongs to the node. What the API server did
not list stays unknown: "no pod has this address" is claimed only where all pods were listed.
"""

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Literal

from kubectl_gadget.kube.inventory import SLICE_OF, Node, Pod, Service, Workload
from kubectl_gadget.kube.resources import ENDPOINT_SLICES, GONE, NODES, PODS, SERVICES, Object

if TYPE_CHECKING:
    from kubectl_gadget.kube.informer import Follower, Objects

KINDS = (PODS, SERVICES, ENDPOINT_SLICES, NODES)
PeerKind = Literal[
    "",
    "pod",
    "ended pod",
    "no pod",
    "service",
    "node",
    "kubelet",
    "kube-apiserver",
    "loopback",
    "link-local",
    "multicast",
    "private",
    "world",
]
PEER_KINDS: tuple[PeerKind, ...] = (
    *("pod", "ended pod", "no pod", "service", "node", "kubelet", "kube-apiserver"),
    *("loopback", "link-local", "multicast", "private", "world"),
)
_API_SERVER = "default", "kubernetes"
_KEPT_SECONDS = 600.0
"""Seconds for which deleted objects are passed on: their last packets may be on their way, and others may still call
their addresses."""
_SLACK_NS = 1_000_000_000
"""The API's times are whole seconds."""
_UNSPECIFIED = frozenset({"", "0.0.0.0", "::"})
_PERHAPS_SPECIAL = frozenset(map(str, (0, 127, 169, *range(224, 240))))
"""First bytes of such IPv4 addresses: parsing all others would take longer than all else that is done for them."""


@dataclass(frozen=True)
class PodFacts:
    """The cluster's data about a pod."""

    namespace: str
    name: str
    labels: tuple[str, ...] = ()
    """key=value"""
    workload: Workload | None = None
    """None: the pod has no owner"""
    node: str = ""
    probed: tuple[int, ...] = ()
    """ports that the kubelet's probes connect to"""
    uids: tuple[str, ...] = field(default=(), compare=False)
    """those that its containers may have; empty: any"""

    def is_of(self, uid: str) -> bool:
        """True if this is the pod of a container with this UID, and not one of the same name. Empty: unknown."""
        return not uid or not self.uids or uid in self.uids


@dataclass(frozen=True, slots=True)
class Peer:
    """The owner of an address, or the kind of address if nothing in the cluster owns it. Empty names are unknown."""

    kind: PeerKind = ""
    node: str = ""
    namespace: str = ""
    pod: str = ""
    service: str = ""

    def text(self, address: str) -> str:
        """The name for a table, where the address stands if there is no name."""
        match self.kind:
            case "pod" if self.pod:
                return f"{self.namespace}/{self.pod}"
            case "ended pod":
                return f"{self.namespace}/{self.pod} (ended)"
            case "no pod":
                return f"{address} (no pod)"
            case "service":
                return f"svc/{self.namespace}/{self.service}"
            case "node":
                return f"node/{self.node}"
            case "kubelet" | "kube-apiserver":
                return self.kind
        return address


UNKNOWN_PEER = Peer()


@dataclass(frozen=True, slots=True)
class OwnEnd:
    """This end of a connection: where a peer is looked up from."""

    node: str = ""
    namespace: str = ""
    pod: str = ""
    port: int = 0


@dataclass(frozen=True, slots=True)
class Tenure:
    """The time in which a pod had an address (wall time in ns)."""

    pod: PodFacts
    since_ns: int
    until_ns: int | None = None
    """when its containers ended; None: it has the address, or it is not known when it lost it"""


@dataclass
class Addresses:
    """The cluster's view of addresses. It is replaced as a whole at each change, so another thread may read it."""

    pods: dict[str, PodFacts] = field(default_factory=dict)
    """by address, those that have it now"""
    by_name: dict[tuple[str, str], PodFacts] = field(default_factory=dict)
    services: dict[str, str] = field(default_factory=dict)
    """NAMESPACE/NAME by address"""
    services_of_backend: dict[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    """by a pod's address: the services' addresses and ports that lead to it"""
    nodes: dict[str, str] = field(default_factory=dict)
    """by address, those at the nodes' ends of their pods' networks as well: probes come from there"""
    own: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """the addresses of a pod by namespace and name, and of a node, without namespace"""
    tenures: dict[str, tuple[Tenure, ...]] = field(default_factory=dict)
    """by address, the oldest first, of addresses that a pod has lost"""
    api_servers: frozenset[tuple[str, int]] = frozenset()
    """the endpoints of the service default/kubernetes"""
    blocks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    """of the nodes' pods"""
    has_all_pods: bool = False
    """the pods of all namespaces were listed, so an address that none of them has belongs to no pod"""
    is_known: bool = False
    """something was listed: an address that nothing has is outside the cluster"""
    _api_addresses: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self._api_addresses = frozenset(ip for ip, _ in self.api_servers)

    def peer(self, ip: str) -> Peer | None:
        """Return the owner of an address, if it is the same at all times and for everyone. None: `peer_at` knows."""
        if ip in self.tenures or ip in self.nodes or ip in self._api_addresses:
            return None
        return self.peer_at(ip)

    def peer_at(self, ip: str, port: int = 0, at_ns: int | None = None, own: OwnEnd | None = None) -> Peer:
        """Return the owner of an address at a wall time, None: now. `own` is the end that is connected with it."""
        if (tenure := self._tenure(ip, at_ns)) is not None:
            has_ended = tenure.until_ns is not None and (at_ns is None or at_ns > tenure.until_ns + _SLACK_NS)
            pod = tenure.pod
            return Peer("ended pod" if has_ended else "pod", pod.node, pod.namespace, pod.name)
        if (pod_now := self.pods.get(ip)) is not None:
            return Peer("pod", pod_now.node, pod_now.namespace, pod_now.name)
        if (service := self.services.get(ip)) is not None:
            namespace, _, name = service.partition("/")
            return Peer("service", namespace=namespace, service=name)
        node = self.nodes.get(ip, "")
        if (ip, port) in self.api_servers:
            namespace, name = _API_SERVER
            return Peer("kube-apiserver", node=node, namespace=namespace, service=name)
        if node:
            return Peer("kubelet" if own is not None and self._is_probe(node, own) else "node", node=node)
        return self._without_owner(ip)

    def pod_at(self, ip: str, at_ns: int | None = None) -> PodFacts | None:
        """Return the pod that had the address at a wall time, None: now."""
        tenure = self._tenure(ip, at_ns)
        return self.pods.get(ip) if tenure is None else tenure.pod

    def _tenure(self, ip: str, at_ns: int | None) -> Tenure | None:
        """Return the pod that had the address then: the first one that had not ended, else the last one before."""
        last = None
        for tenure in self.tenures.get(ip, ()):
            if at_ns is not None and tenure.since_ns > at_ns + _SLACK_NS:
                break
            last = tenure
            if tenure.until_ns is None or (at_ns is not None and at_ns <= tenure.until_ns):
                break
        return last

    def _is_probe(self, node: str, own: OwnEnd) -> bool:
        """True if a pod's own node connects to a port of its probes. No other pod has the node's address, except pods
        on the host's network."""
        pod = self.by_name.get((own.namespace, own.pod))
        return pod is not None and own.node == node and own.port in pod.probed

    def _without_owner(self, ip: str) -> Peer:
        if ip in _UNSPECIFIED:
            return UNKNOWN_PEER
        kind = special(ip)
        if kind:
            return Peer(kind)
        if not self.is_known:
            return UNKNOWN_PEER
        address = ipaddress.ip_address(ip)
        if any(address in block for block in self.blocks):
            return Peer("no pod" if self.has_all_pods else "pod")
        return Peer("world" if address.is_global else "private")


@lru_cache(65536)
def special(ip: str) -> PeerKind:
    """Return the kind of an address that many hosts or pods have at the same time; empty for all others."""
    first, dot, _ = ip.partition(".")
    if dot and first.isdecimal() and first not in _PERHAPS_SPECIAL:
        return ""
    if not ip:
        return "loopback"
    address = ipaddress.ip_address(ip)
    if address.version == 6 and address.ipv4_mapped:  # Python 3.11 and 3.12 do not look into these themselves
        address = address.ipv4_mapped
    if address.is_loopback or address.is_unspecified:
        return "loopback"
    return "link-local" if address.is_link_local else "multicast" if address.is_multicast else ""


def is_shared(ip: str) -> bool:
    """True if many hosts or pods have this address at the same time."""
    return special(ip) != ""


class ClusterView:
    """The present view of a run. It may be replaced from any thread."""

    def __init__(self) -> None:
        self.present = Addresses()

    def take(self, found: Addresses) -> None:
        """Replaces the view."""
        self.present = found

    def get(self) -> Addresses:
        """Return the present view."""
        return self.present


# Reads the cluster's objects, during a run or from a recording. Addresses of objects that the user may not list stay
# without names; this does not end the run.


def followed(take: Callable[[Addresses], object], wait_seconds: float, missing: str) -> "Follower":
    """Passes the cluster's view on, at each change of its objects. `wait_seconds`: how long a run waits for the first
    one. `missing`: what the user is told to miss, if objects may not be listed."""
    from kubectl_gadget.kube.informer import Follower  # the API's client, which runs without a cluster do not need

    narrowed: set[str] = set()
    pods = _ReadPods()

    def prepare(found: "Objects") -> Callable[[], object]:
        has_all_pods = PODS.plural not in narrowed and PODS in found
        return partial(take, known(found, has_all_pods, pods))

    return Follower(
        KINDS,
        prepare,
        wait_seconds,
        _KEPT_SECONDS,
        missing=missing,
        unchanged="names of addresses are not updated",
        narrowed=lambda resource: narrowed.add(resource.plural),
    )


class _ReadPods(dict[int, tuple[Object, Pod, PodFacts, Tenure]]):
    """Values read from pods. When one changes, only it is read again: a cluster may have 100,000."""

    def all(self, items: Sequence[Object]) -> Iterable[tuple[Pod, PodFacts, Tenure]]:
        found = {}
        for item in items:
            read = self.get(id(item))
            if read is None or read[0] is not item:
                pod = Pod.from_object(item)
                facts = _facts(pod)
                since = wall_ns(item["metadata"].get("creationTimestamp"))
                read = item, pod, facts, Tenure(facts, since, _ended_ns(pod, item))
            found[id(item)] = read
        self.clear()
        self.update(found)
        return [(pod, facts, tenure) for _, pod, facts, tenure in found.values()]


def known(found: "Objects", has_all_pods: bool = False, read: _ReadPods | None = None) -> Addresses:
    """Return the view of all API objects that it can use. `read`: what was read of pods before."""
    pods, services, slices, nodes = (found.get(kind, []) for kind in KINDS)
    return addresses(pods, services, slices, nodes, has_all_pods, read)


def addresses(
    pods: Sequence[Object],
    services: Sequence[Object],
    slices: Sequence[Object],
    nodes: Sequence[Object],
    has_all_pods: bool = False,
    read: _ReadPods | None = None,
) -> Addresses:
    """Return the view of these objects. Of several pods with one address, the last that has not ended has it now."""
    of_nodes: dict[str, str] = {}
    own: dict[tuple[str, str], list[str]] = {}
    blocks = []
    for node in map(Node.from_object, nodes):
        own["", node.name] = list(node.addresses)
        own_blocks = list(map(ipaddress.ip_network, node.pod_blocks))
        blocks += own_blocks
        # The network address itself is what overlay networks give their tunnel's end.
        of_tunnel = [str(block[0]) for block in own_blocks if block.num_addresses > 1]
        of_nodes.update(dict.fromkeys([*of_tunnel, *node.own_addresses()], node.name))
    by_address: dict[str, list[Tenure]] = {}
    by_name: dict[tuple[str, str], PodFacts] = {}
    for pod, facts, tenure in (_ReadPods() if read is None else read).all(pods):
        by_name[pod.namespace, pod.name] = facts
        own[pod.namespace, pod.name] = list(pod.addresses)
        if not pod.host_network:
            for ip in pod.addresses:
                by_address.setdefault(ip, []).append(tenure)
    now = {ip: has[-1].pod for ip, of_ip in by_address.items() if (has := [one for one in of_ip if _lasts(one)])}
    of_services, backends, api_servers = _services(services, slices)
    return Addresses(
        pods=now,
        by_name=by_name,
        services=of_services,
        services_of_backend=backends,
        own=own,
        nodes={ip: name for ip, name in of_nodes.items() if ip not in by_address},
        tenures={ip: _in_order(of_ip) for ip, of_ip in by_address.items() if len(of_ip) > 1 or not _lasts(of_ip[0])},
        api_servers=api_servers,
        blocks=tuple(blocks),
        has_all_pods=has_all_pods,
        is_known=bool(nodes or pods),
    )


def _lasts(tenure: Tenure) -> bool:
    return tenure.until_ns is None


def _in_order(tenures: Iterable[Tenure]) -> tuple[Tenure, ...]:
    """The oldest first. A pod whose end is not known has lost the address when the next one got it."""
    found = sorted(tenures, key=lambda one: one.since_ns)
    for place, following in enumerate(found[1:]):
        if found[place].until_ns is None:
            found[place] = Tenure(found[place].pod, found[place].since_ns, following.since_ns)
    return tuple(found)


def _ended_ns(pod: Pod, item: Object) -> int | None:
    """Return when the last container of a pod ended that is gone or will not run again; None: it may still run."""
    status = item.get("status") or {}
    if not pod.ended and not item.get(GONE):
        return None
    ends = [
        wall_ns(((one.get("state") or {}).get("terminated") or {}).get("finishedAt"))
        for one in status.get("containerStatuses") or ()
    ]
    return max(ends) if ends and all(ends) else wall_ns(item.get(GONE))


def wall_ns(text: object) -> int:
    """Return a time of the API in ns since 1970; 0: there is none."""
    try:
        return int(datetime.fromisoformat(str(text)).timestamp()) * 1_000_000_000 if text else 0
    except ValueError:
        return 0


def _facts(pod: Pod) -> PodFacts:
    workload = pod.workload if pod.workload.kind != "Pod" else None
    labels = tuple(f"{name}={value}" for name, value in sorted(pod.labels.items()))
    return PodFacts(
        pod.namespace, pod.name, labels, workload, pod.node, pod.probed, tuple(filter(None, (pod.uid, pod.static_uid)))
    )


def _services(
    services: Sequence[Object], slices: Sequence[Object]
) -> tuple[dict[str, str], dict[str, tuple[tuple[str, int], ...]], frozenset[tuple[str, int]]]:
    """Return the services by address, their addresses and ports by backend, and the API server's endpoints."""
    found: dict[str, str] = {}
    ports: dict[tuple[str, str], tuple[tuple[str, ...], dict[str, int]]] = {}
    for service in map(Service.from_object, services):
        found.update(dict.fromkeys(service.addresses, f"{service.namespace}/{service.name}"))
        by_name = {port.name: port.port for port in service.ports}
        ports[service.namespace, service.name] = service.addresses, by_name
    backends: dict[str, set[tuple[str, int]]] = {}
    api_servers = set[tuple[str, int]]()
    for item in slices:
        metadata, of_slice = item["metadata"], item.get("ports") or ()
        owner = metadata["namespace"], (metadata.get("labels") or {}).get(SLICE_OF, "")
        own, by_name = ports.get(owner, ((), {}))
        to = {
            (ip, by_name[port.get("name") or ""])
            for ip in own
            for port in of_slice
            if (port.get("name") or "") in by_name
        }
        for address in (ip for endpoint in item.get("endpoints") or () for ip in endpoint.get("addresses") or ()):
            backends.setdefault(address, set()).update(to)
            if owner == _API_SERVER:
                api_servers.update((address, port["port"]) for port in of_slice if port.get("port"))
    return found, {address: tuple(sorted(to)) for address, to in backends.items()}, frozenset(api_servers)
