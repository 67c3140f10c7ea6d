"""Finds the owner of an address among the cluster's pods, services and nodes, traced containers, and DNS answers.

The trap: addresses are reused. What a traced container uses takes precedence over the cluster's view, which may be
late; and pods on the host's network have the node's address, so that address belongs to the node.
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial

from kubectl_gadget.flows.flow import PodFacts, Who, address_name
from kubectl_gadget.kube.informer import Follower, Objects
from kubectl_gadget.kube.inventory import SLICE_OF, Node, Pod, Service
from kubectl_gadget.kube.resources import ENDPOINT_SLICES, NODES, PODS, SERVICES, Object

_MOST_NAMES = 65536
_MOST_ADDRESSES = 65536
_MOST_FOUND = 65536
_MOST_PODS = 65536
_PERHAPS_SHARED = frozenset(map(str, (0, 127, 169, *range(224, 240))))
"""First bytes of such IPv4 addresses: parsing all others would take longer than all else that is done for them."""


@dataclass
class Addresses:
    """The cluster's view of addresses. It is replaced as a whole at each change, so another thread may read it."""

    pods: dict[str, PodFacts] = field(default_factory=dict)
    """by address"""
    by_name: dict[tuple[str, str], PodFacts] = field(default_factory=dict)
    services: dict[str, str] = field(default_factory=dict)
    """NAMESPACE/NAME by address"""
    services_of_backend: dict[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    """by a pod's address: the services' addresses and ports that lead to it"""
    nodes: dict[str, str] = field(default_factory=dict)
    own: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """the addresses of a pod by namespace and name, and those of a node, without namespace"""


class AddressBook:
    """Finds owners of addresses. `cluster` may be set from any thread."""

    def __init__(self) -> None:
        self.cluster = Addresses()
        self._seen: OrderedDict[str, PodFacts] = OrderedDict()
        """pods that used an address as their own"""
        self._names: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._unknown: dict[tuple[str, str], PodFacts] = {}
        """traced pods that the cluster's view does not have"""
        self._found: dict[tuple[str, str], Who] = {}
        self._own: dict[tuple[str, str, bool], str] = {}
        """an address that a pod used last, by namespace, name and whether it is IPv6"""
        self._found_in = self.cluster
        """the `cluster` for which `_found` was filled"""

    def facts(self, namespace: str, pod: str) -> PodFacts:
        """Return what is known about a traced pod. Equal pods are one object, since comparing objects is faster."""
        found = self.cluster.by_name.get((namespace, pod))
        if found is None:
            found = self._unknown.get((namespace, pod))
        if found is None:
            if len(self._unknown) >= _MOST_PODS:
                self._unknown.clear()
            found = self._unknown[namespace, pod] = PodFacts(namespace, pod)
        return found

    def saw(self, ip: str, pod: PodFacts) -> None:
        """Records that a traced container of this pod used this address as its own."""
        before = self._seen.get(ip)
        if before is pod or is_shared(ip) or ip in self.cluster.nodes:
            return
        self._seen[ip] = pod
        if len(self._own) >= _MOST_PODS:
            self._own.clear()
        self._own[pod.namespace, pod.name, ":" in ip] = ip
        if before != pod:
            self._found.clear()
        self._seen.move_to_end(ip)
        if len(self._seen) > _MOST_ADDRESSES:
            self._seen.popitem(last=False)

    def address_of(self, who: Who, is_ipv6: bool) -> str:
        """An address of a pod or of a node's processes; empty if it is not known."""
        name = (who.pod.namespace, who.pod.name) if who.pod else ("", who.node)
        seen = self._own.get((*name, is_ipv6))
        return seen or next((ip for ip in self.cluster.own.get(name, ()) if (":" in ip) == is_ipv6), "")

    def is_own(self, ip: str) -> bool:
        """True if pods or nodes have this address themselves, so that no service can have it."""
        return ip in self._seen or ip in self.cluster.pods

    def resolved(self, asker: str, ip: str, name: str) -> None:
        """Records that a pod or a node got a DNS answer in which `name` has this address."""
        self._names[asker, ip] = name.rstrip(".")
        self._names.move_to_end((asker, ip))
        self._found.pop((asker, ip), None)
        if len(self._names) > _MOST_NAMES:
            self._names.popitem(last=False)

    def find(self, ip: str, asker: str) -> Who:
        """The owner of an address whose end was not traced. `asker` is the name of the other end."""
        if self._found_in is not self.cluster or len(self._found) > _MOST_FOUND:
            self._found.clear()
            self._found_in = self.cluster
        found = self._found.get((asker, ip))
        if found is None:
            found = self._found[asker, ip] = self._find(ip, asker)
        return found

    def _find(self, ip: str, asker: str) -> Who:
        name = self._names.get((asker, ip))
        names = (name,) if name else ()
        if pod := self._seen.get(ip) or self.cluster.pods.get(ip):
            return Who("pod", pod, names=names)
        if service := self.cluster.services.get(ip):
            return Who("service", service=service, names=names)
        if node := self.cluster.nodes.get(ip):
            return Who("node", node=node, names=names)
        if is_shared(ip):
            return Who("loopback", names=names, address=address_name(ip))
        return Who("name" if names else "world", names=names, address=address_name(ip))


@lru_cache(65536)
def is_shared(ip: str) -> bool:
    """True if many hosts or pods have this address at the same time."""
    if not ip:
        return True
    first, dot, _ = ip.partition(".")
    if dot and first.isdecimal() and first not in _PERHAPS_SHARED:
        return False
    address = ipaddress.ip_address(ip)
    if address.version == 6 and address.ipv4_mapped:  # Python 3.11 and 3.12 do not look into these themselves
        address = address.ipv4_mapped
    return address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified


# Keeps an address book up to date with the cluster's pods, services and nodes. Addresses of objects that the user may
# not list stay without names; this does not end the run.


_FIRST_SECONDS = 5.0
_KEPT_SECONDS = 60.0
_KINDS = (PODS, SERVICES, ENDPOINT_SLICES, NODES)


def followed(book: AddressBook) -> Follower:
    """Keeps `book.cluster` up to date during a run; the run waits a moment for the first lists."""

    def take(found: Objects) -> Callable[[], object]:
        return partial(setattr, book, "cluster", known(found))

    # The last packets of deleted objects may still be on their way.
    return Follower(
        _KINDS,
        take,
        _FIRST_SECONDS,
        _KEPT_SECONDS,
        missing="some addresses have no names",
        unchanged="names of addresses are not updated",
    )


def known(found: Objects) -> Addresses:
    """The address book of all API objects that it can use."""
    return addresses(*(found.get(kind, []) for kind in _KINDS))


def addresses(pods: list[Object], services: list[Object], slices: list[Object], nodes: list[Object]) -> Addresses:
    found = Addresses()
    for node in map(Node.from_object, nodes):
        found.nodes.update(dict.fromkeys(node.addresses, node.name))
        found.own["", node.name] = list(node.addresses)
    for item in pods:
        pod = Pod.from_object(item)
        facts = found.by_name[pod.namespace, pod.name] = _facts(pod, (item.get("spec") or {}).get("nodeName") or "")
        found.own[pod.namespace, pod.name] = list(pod.addresses)
        if not pod.host_network and not pod.ended:
            found.pods.update(dict.fromkeys(pod.addresses, facts))
    ports: dict[tuple[str, str], tuple[tuple[str, ...], dict[str, int]]] = {}
    for service in map(Service.from_object, services):
        found.services.update(dict.fromkeys(service.addresses, f"{service.namespace}/{service.name}"))
        by_name = {port.name: port.port for port in service.ports}
        ports[service.namespace, service.name] = service.addresses, by_name
    services_of_backend: dict[str, set[tuple[str, int]]] = {}
    for item in slices:
        metadata = item["metadata"]
        service_name = (metadata.get("labels") or {}).get(SLICE_OF, "")
        own, by_name = ports.get((metadata["namespace"], service_name), ((), {}))
        to = {
            (ip, by_name[port.get("name") or ""])
            for ip in own
            for port in item.get("ports") or ()
            if (port.get("name") or "") in by_name
        }
        for endpoint in item.get("endpoints") or ():
            for address in endpoint.get("addresses") or ():
                services_of_backend.setdefault(address, set()).update(to)
    found.services_of_backend = {address: tuple(sorted(to)) for address, to in services_of_backend.items()}
    return found


def _facts(pod: Pod, node: str) -> PodFacts:
    workload = pod.workload if pod.workload.kind != "Pod" else None
    labels = tuple(f"{name}={value}" for name, value in sorted(pod.labels.items()))
    return PodFacts(pod.namespace, pod.name, labels, workload, node)
