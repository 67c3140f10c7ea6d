"""Finds the owner of an address: what the cluster knows (kube/addresses.py), traced containers, and DNS answers.

Note: what a traced container uses takes precedence over the cluster's view, which may be late.
"""

from collections import OrderedDict

from kubectl_gadget.flows.flow import Who, address_name
from kubectl_gadget.kube.addresses import Addresses, OwnEnd, PodFacts, is_shared

_MOST_NAMES = 65536
_MOST_ADDRESSES = 65536
_MOST_FOUND = 65536
_MOST_PODS = 65536


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

    def facts(self, namespace: str, pod: str, uid: str = "") -> PodFacts:
        """Return what is known about a traced pod. Equal pods are one object, since comparing objects is faster."""
        found = self.cluster.by_name.get((namespace, pod))
        if found is None or not found.is_of(uid):
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

    def find(self, ip: str, asker: str, port: int = 0, at_ns: int | None = None, own: OwnEnd | None = None) -> Who:
        """The owner of an address whose end was not traced. `asker` is the name of the other end; the others are as in
        Addresses.peer_at."""
        if self._found_in is not self.cluster or len(self._found) > _MOST_FOUND:
            self._found.clear()
            self._found_in = self.cluster
        found = self._found.get((asker, ip))
        if found is None:
            found = self._find(ip, asker, port, at_ns, own)
            if self.cluster.peer(ip) is not None:
                self._found[asker, ip] = found
        return found

    def _find(self, ip: str, asker: str, port: int, at_ns: int | None, own: OwnEnd | None) -> Who:
        name = self._names.get((asker, ip))
        names = (name,) if name else ()
        peer = self.cluster.peer_at(ip, port, at_ns, own)
        seen = self._seen.get(ip)
        if seen is not None and not (peer.kind == "pod" and ip in self.cluster.tenures):
            return Who("pod", seen, names=names)
        match peer.kind:
            case "pod" | "ended pod" if peer.pod:
                pod = self.cluster.pod_at(ip, at_ns) or self.facts(peer.namespace, peer.pod)
                return Who(peer.kind, pod, names=names)
            case "service" | "kube-apiserver":
                return Who(peer.kind, service=f"{peer.namespace}/{peer.service}", node=peer.node, names=names)
            case "node" | "kubelet":
                return Who(peer.kind, node=peer.node, names=names)
            case "pod" | "no pod":
                return Who(peer.kind, names=names, address=address_name(ip))
        if is_shared(ip):
            return Who("loopback", names=names, address=address_name(ip))
        return Who("name" if names else "world", names=names, address=address_name(ip))
