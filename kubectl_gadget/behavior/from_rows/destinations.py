"""Names the other end of a connection, as far as it is the same in the next run.

In this order: localhost, a service or a workload of the cluster, a node, a name that DNS gave to this pod for the
address, a DNS server of a private network, a network. The trap: a name that DNS gave says where the program wanted to
go, and no address of the internet stays the same; so an address without a name is only "internet".
"""

import ipaddress
from functools import lru_cache

from kubectl_gadget.behavior.from_rows.generalization import Generalizer
from kubectl_gadget.kube.inventory import Inventory, Workload
from kubectl_gadget.policies.network.evaluate import normal

_DNS = 53
_PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "fc00::/7")
)
"""where a cluster or a company has its own DNS servers (RFC 1918, 6598, 3927, 4193)"""
EPHEMERAL = "<ephemeral>"
_METADATA = frozenset({"169.254.169.254", "fd00:ec2::254", "169.254.170.2"})
_SERVICE_PARTS = 3


class Destinations:
    """Looks up addresses among the cluster's objects of one run."""

    def __init__(self, inventory: Inventory, generalizer: Generalizer) -> None:
        self._generalizer = generalizer
        self._services = {normal(ip): item for item in inventory.services for ip in item.addresses}
        self._nodes = {normal(ip) for node in inventory.nodes for ip in node.addresses}
        self._workloads: dict[str, Workload] = {}
        for pod in inventory.pods:
            if not pod.host_network:
                self._workloads |= dict.fromkeys(map(normal, pod.addresses), pod.workload)

    def learn(self, address: str, workload: Workload) -> None:
        """Notes that a pod of this workload has this address; the cluster's objects take precedence."""
        address = normal(address)
        if not ipaddress.ip_address(address).is_loopback and address not in self._nodes:
            self._workloads.setdefault(address, workload)

    def text(self, address: str, port: int, protocol: str, name: str) -> str:
        """`service shop/redis:6379/tcp`. `name`: what DNS called the address; empty: nothing."""
        where, is_inside = self._where(normal(address), name)
        if port == _DNS and where.startswith("network ") and _is_private(normal(address)):
            where = "DNS server"
        ephemeral = self._generalizer.rules.ephemeral_port
        number = EPHEMERAL if is_inside and 0 < ephemeral <= port else port
        return f"{where}:{number}/{protocol.lower()}"

    def _where(self, address: str, name: str) -> tuple[str, bool]:
        """The location of an address, and whether that is in the cluster."""
        if address in _METADATA:
            return "metadata service", False
        if _is_own(address):
            return "localhost", True
        if (service := self._services.get(address)) is not None:
            return f"service {service.namespace}/{service.name}", True
        if (workload := self._workloads.get(address)) is not None:
            return f"workload {workload}", True
        if address in self._nodes:
            return "node", True
        if name:
            text = self._generalizer.name(name)
            # The cluster's own names never stand for an address outside, whatever a DNS server answers.
            if not (text.endswith(".svc") and ipaddress.ip_address(address).is_global):
                return _named(text)
        return _network(address), False


def _named(name: str) -> tuple[str, bool]:
    """A DNS name; that of a service is written as the service itself."""
    parts = name.removesuffix(".svc").split(".")
    if name.endswith(".svc") and len(parts) < _SERVICE_PARTS:
        return f"service {parts[-1]}/{parts[0]}" if len(parts) > 1 else f"service {name}", True
    return f"name {name}", False


@lru_cache(65536)
def _is_own(address: str) -> bool:
    found = ipaddress.ip_address(address)
    return found.is_loopback or found.is_unspecified


def _is_private(address: str) -> bool:
    return any(ipaddress.ip_address(address) in network for network in _PRIVATE)


@lru_cache(65536)
def _network(address: str) -> str:
    found = ipaddress.ip_address(address)
    if found.is_multicast:
        return "multicast"
    if found.is_link_local:
        return "network link-local"
    if found.is_global:
        return "internet"
    length = 24 if found.version == 4 else 64
    return f"network {ipaddress.ip_network(f'{address}/{length}', strict=False)}"
