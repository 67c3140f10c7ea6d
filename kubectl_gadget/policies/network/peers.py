"""Who has an address: pods by labels, services by backends, nodes, or nothing known to the cluster.

The trap: a program that calls a service sees the service's address, but whatever enforces policies sees the backend's,
so a service is replaced by its backends with their ports here. And pods on the host's network have their node's
address.
"""

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kubectl_gadget.kube.inventory import Inventory, Node, Pod, Port, Service

Use = Mapping[str, Any]
"""A flow that was seen at a pod, with the members of a row of `top flow`."""
PROTOCOLS = ("TCP", "UDP", "SCTP")
NAMESPACE_LABEL = "kubernetes.io/metadata.name"


@dataclass(frozen=True)
class Peer:
    """One end of a flow, in the terms of policies: pods of a namespace by labels, or an address."""

    namespace: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    address: str = ""
    """set when there are no labels to select by"""
    kind: str = "pods"
    """pods, node, api (the API server itself) or outside"""
    note: str = field(default="", compare=False)

    @property
    def cidr(self) -> str:
        """The address as a block of one address."""
        return f"{self.address}/{ipaddress.ip_address(self.address).max_prefixlen}"


@dataclass(frozen=True)
class NeededFlow:
    """A flow that a policy has to allow: to or from a peer, on one port. One seen flow may become several."""

    ingress: bool
    peer: Peer
    protocol: str
    port: int
    answered: bool = True


@dataclass(frozen=True)
class Endpoint:
    """The final destination of a flow."""

    address: str
    pod: Pod | None
    port: int


class Peers:
    """Looks up peers in one inventory."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._pods: dict[str, Pod] = {}
        for pod in sorted(inventory.pods, key=lambda pod: not pod.ended):
            if not pod.host_network:
                self._pods |= dict.fromkeys(map(normal, pod.addresses), pod)
        self._nodes: dict[str, Node] = {normal(ip): node for node in inventory.nodes for ip in own_addresses(node)}
        self._blocks = [(ipaddress.ip_network(block), node) for node in inventory.nodes for block in node.pod_blocks]
        self._services: dict[str, Service] = {normal(ip): item for item in inventory.services for ip in item.addresses}

    def pod_at(self, address: str) -> Pod | None:
        return self._pods.get(normal(address))

    def flows(self, use: Use) -> Iterator[NeededFlow]:
        """The flows that policies have to allow for a use of `top flow`; none for traffic that policies never
        concern."""
        remote, protocol = normal(use["remote"]), use["protocol"]
        if protocol not in PROTOCOLS or is_own(use):
            return
        ingress = use["direction"] == "ingress"
        answered = bool(use["sent_packets"] and use["received_packets"])
        service = None if ingress else self._services.get(remote)
        if service is None:
            yield NeededFlow(ingress, self.peer(remote), protocol, use["port"], answered)
        else:
            for peer, port in self._backends(service, remote, protocol, use["port"]):
                yield NeededFlow(ingress, peer, protocol, port, answered)

    def peer(self, address: str) -> Peer:
        pod = self._pods.get(address)
        if pod is not None:
            labels = pod.selecting_labels
            note = f"{pod.workload}" if labels else f"the pod {pod.namespace}/{pod.name}, which has no labels"
            return pods_peer(pod.namespace, labels, note) if labels else Peer(address=address, note=note)
        if (node := self._nodes.get(address)) is not None:
            return Peer(address=address, kind="node", note=f"the node {node.name}")
        found = ipaddress.ip_address(address)
        if of_pods := next((node for block, node in self._blocks if found in block), None):
            return Peer(address=address, kind="outside", note=f"a pod of {of_pods.name} that is unknown, or gone")
        return Peer(address=address, kind="outside", note=_outside(address))

    def _backends(self, service: Service, remote: str, protocol: str, port: int) -> Iterator[tuple[Peer, int]]:
        name = f"the service {service.namespace}/{service.name}"
        of_service = _port_of(service, protocol, port)
        if of_service is None:
            yield Peer(address=remote, kind="outside", note=f"{name}, which has no port {port}"), port
        elif service.selector:
            for target in self._targets(service, of_service):
                yield pods_peer(service.namespace, service.selector, name), target
        else:
            yield from self._fixed_backends(service, of_service, name)

    def _fixed_backends(self, service: Service, port: Port, name: str) -> Iterator[tuple[Peer, int]]:
        is_api = (service.namespace, service.name) == ("default", "kubernetes")
        for end in self._fixed_endpoints(service, port):
            peer = self.peer(end.address)
            if peer.address:
                peer = Peer(address=peer.address, kind="api" if is_api else peer.kind, note=name)
            yield peer, end.port

    def _fixed_endpoints(self, service: Service, port: Port) -> list[Endpoint]:
        found = [item for item in service.backends if item[1] == port.protocol]
        numbered = [item for item in found if item[2] == port.target]
        return [Endpoint(normal(address), self.pod_at(address), number) for address, _, number in numbered or found]

    def _targets(self, service: Service, port: Port) -> list[int]:
        """The target ports of a service's port; each backend may define a named port differently."""
        pods = self.selected(service.namespace, service.selector)
        found = {number for pod in pods for number in _target_on(pod, port)}
        return sorted(found) or [port.target if isinstance(port.target, int) and port.target else port.port]

    def endpoints(self, use: Use) -> list[Endpoint]:
        """The endpoints that an outgoing flow may have reached: for a service, each of its backends."""
        remote = normal(use["remote"])
        service = self._services.get(remote)
        port = None if service is None else _port_of(service, use["protocol"], use["port"])
        if service is None or port is None:
            found = []
        elif service.selector:
            pods = self.selected(service.namespace, service.selector)
            found = [
                Endpoint(normal(address), pod, number)
                for pod in pods
                for address in pod.addresses
                for number in _target_on(pod, port)
            ]
        else:
            found = self._fixed_endpoints(service, port)
        return found or [Endpoint(remote, self.pod_at(remote), use["port"])]

    def describe(self, use: Use) -> str:
        """The other end, for people."""
        remote = normal(use["remote"])
        service = self._services.get(remote)
        if service is not None:
            return f"service {service.namespace}/{service.name}"
        if (pod := self._pods.get(remote)) is not None:
            return f"pod {pod.namespace}/{pod.name}"
        node = self._nodes.get(remote)
        return remote if node is None else f"node {node.name}"

    def selected(self, namespace: str, labels: dict[str, str]) -> list[Pod]:
        """The pods with all of these labels."""
        return [
            pod for pod in self._inventory.pods if pod.namespace == namespace and labels.items() <= pod.labels.items()
        ]


def own_addresses(node: Node) -> Iterator[str]:
    """A node's addresses, and the first one of its pods' block, which most network plugins assign to the node's own
    end: probes come from there."""
    yield from node.addresses
    for block in map(ipaddress.ip_network, node.pod_blocks):
        if block.num_addresses > 1:
            yield str(block[1])


def _port_of(service: Service, protocol: str, port: int) -> Port | None:
    return next((item for item in service.ports if (item.protocol, item.port) == (protocol, port)), None)


def _target_on(pod: Pod, port: Port) -> list[int]:
    """A service's target port on one backend, which may define it by name; empty when it has no port of that name."""
    if isinstance(port.target, int):
        return [port.target or port.port]
    return [item.port for item in pod.ports if (item.name, item.protocol) == (port.target, port.protocol)]


def pods_peer(namespace: str, labels: dict[str, str], note: str = "") -> Peer:
    return Peer(namespace, tuple(sorted(labels.items())), note=note)


def normal(address: str) -> str:
    """The canonical spelling of an address; IPv4-mapped IPv6 becomes IPv4."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def is_own(use: Use) -> bool:
    """Whether a pod talks to itself, which no policy can forbid."""
    remote = ipaddress.ip_address(normal(use["remote"]))
    return remote.is_loopback or (bool(use.get("local")) and normal(use["local"]) == str(remote))


def _outside(address: str) -> str:
    found = ipaddress.ip_address(address)
    if found.is_multicast:
        return "a multicast group"
    if found.is_link_local:
        return "on the node's own link, such as a DNS cache or a metadata service"
    return "not a known pod, service or node"
