"""Addresses and ports that are translated after the decision: those of services, and of nodes that relay to pods.

Calling such an address is allowed when calling all of its targets is. The trap: policies always allow calls to a node,
so ports of a node that lead elsewhere (nodePort, hostPort, and those of a service that has a node's address) have to be
distinguished from the node.
"""

from collections.abc import Iterator, Sequence
from functools import cache

from kubectl_gadget.kube.inventory import Inventory, Pod, Port, Service
from kubectl_gadget.policies.network.kernel_tables import EGRESS, PEER_SERVICE, ObjectNumbers, PolicyTables
from kubectl_gadget.policies.network.peers import Peers, normal, own_addresses
from kubectl_gadget.policies.network.prefixes import block

EACH_NODE = ""
Relays = dict[str, list[tuple[int, bool, str, int]]]
"""By node: the arguments of PolicyTables.relay()."""
_Backend = tuple[tuple[int, int], str, int]
"""Peer, protocol, port."""


def add_translated(
    tables: PolicyTables, numbers: ObjectNumbers, inventory: Inventory, peers: Peers, subjects: Sequence[int]
) -> Relays:
    """Adds them to `tables`, which must already have all rules. `subjects` are those that are isolated for egress."""
    relays: Relays = {}
    allows = cache(tables.allows_peer)

    def allow(peer: int, protocol: str, port: int, backends: Sequence[_Backend]) -> None:
        for subject in subjects:
            if backends and all(allows(subject, EGRESS, *end) for end in backends):
                tables.allow_port(subject, EGRESS, peer, protocol, port, 16)

    def relay(node: str, is_v4: bool, protocol: str, port: int, name: str, backends: Sequence[_Backend]) -> None:
        number = numbers["relayed", node, is_v4, protocol, port]
        tables.add_relayed(number, name)
        relays.setdefault(node, []).append((number, is_v4, protocol, port))
        allow(number, protocol, port, backends)

    for service in inventory.services:
        name = f"service {service.namespace}/{service.name}"
        for is_v4, addresses in _by_version(service.addresses):
            peer = numbers["service", service.namespace, service.name, is_v4]
            for address in addresses:
                tables.add_peer(block(address), peer, PEER_SERVICE, name)
            nodes = list(_nodes_at(inventory, addresses))
            for port, backends in _backends(tables, peers, service, addresses[0]):
                allow(peer, port.protocol, port.port, backends)
                if port.on_node:
                    relay(EACH_NODE, is_v4, port.protocol, port.on_node, name, backends)
                for node in nodes:
                    relay(node, is_v4, port.protocol, port.port, name, backends)
    for pod in inventory.pods:
        for port, is_v4, address in _on_node(pod):
            backend = tables.peer_at(address), port.protocol, port.port
            relay(pod.node, is_v4, port.protocol, port.on_node, f"pod {pod.namespace}/{pod.name}", [backend])
    return relays


def _backends(
    tables: PolicyTables, peers: Peers, service: Service, address: str
) -> Iterator[tuple[Port, list[_Backend]]]:
    """For each port of the service, the backends with the IP version of `address`."""
    own, is_v4 = normal(address), block(address).is_v4
    for port in service.ports:
        endpoints = peers.endpoints({"remote": own, "protocol": port.protocol, "port": port.port})
        backends = [found for found in endpoints if found.address != own and block(found.address).is_v4 == is_v4]
        yield port, [(tables.peer_at(backend.address), port.protocol, backend.port) for backend in backends]


def _nodes_at(inventory: Inventory, addresses: Sequence[str]) -> Iterator[str]:
    """Nodes whose address a service has too, as an external one."""
    wanted = set(map(normal, addresses))
    for node in inventory.nodes:
        if wanted.intersection(map(normal, own_addresses(node))):
            yield node.name


def _on_node(pod: Pod) -> Iterator[tuple[Port, bool, str]]:
    """The pod's ports that its node relays, with the pod's address. Pods on the host's network own their ports."""
    if not pod.host_network:
        for port in pod.ports:
            for is_v4, addresses in _by_version(pod.addresses) if port.on_node else ():
                yield port, is_v4, addresses[0]


def _by_version(addresses: Sequence[str]) -> Iterator[tuple[bool, list[str]]]:
    """The addresses of IPv4 (True) and of IPv6, where there are any."""
    for is_v4 in (True, False):
        if found := [address for address in addresses if block(address).is_v4 is is_v4]:
            yield is_v4, found
