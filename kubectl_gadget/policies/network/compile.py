"""Compiles NetworkPolicies and the cluster's objects into tables for one node."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from kubectl_gadget.kube.inventory import Inventory, Node, Pod, Port, Service
from kubectl_gadget.kube.resources import Object
from kubectl_gadget.policies.network.evaluate import Endpoint, Evaluation, Peers, Policy, normal
from kubectl_gadget.policies.network.kernel_tables import (
    ALL,
    ANYONE,
    EGRESS,
    INGRESS,
    PEER,
    PEER_NODE,
    PEER_SERVICE,
    UNMATCHED,
    AddressBlock,
    ObjectNumbers,
    PolicyTables,
    block,
    pod_entry,
    port_prefixes,
)

# Addresses and ports that are translated after the decision: those of services, and of nodes that relay to pods.
#
# Calling such an address is allowed when calling all of its targets is. Policies always allow calls to a
# node, so ports of a node that lead elsewhere (nodePort, hostPort, and those of a service that has a node's address)
# have to be distinguished from the node.

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
        if wanted.intersection(map(normal, node.own_addresses())):
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


# Compiles policies and the cluster's objects into tables for one node.
#
# Pods to which the same policies apply form one subject; addresses that match the same rules form one peer. The
# longest block that contains an address determines its peer, so each block and each `except` is one entry. The traps:
# named ports are the called pod's, so pods with different ports are different subjects and peers; and
# addresses that are translated after the decision (translated_addresses.py) need the rules of all other addresses
# first.


_WORDS = {EGRESS: ("egress", "to"), INGRESS: ("ingress", "from")}
_NOT_KNOWN = "(the pod's labels are not known yet)"
Terms = frozenset[int]
NamedPorts = tuple[tuple[str, str, int], ...]


_Kind = tuple[str, frozenset[tuple[str, str]]]


def _kind(pod: Pod) -> _Kind:
    """The properties that selectors match."""
    return pod.namespace, frozenset(pod.labels.items())


@dataclass
class _Rule:
    name: str
    terms: Terms | None
    """None: everyone"""
    ports: Sequence[Mapping[str, Any]]
    """empty: all ports"""


@dataclass
class _Term:
    """One entry of `from` or `to`. Equal entries have the same `text`."""

    text: str
    namespace: str
    peer: Object
    blocks: tuple[AddressBlock, tuple[AddressBlock, ...]] | None = None

    def leaves_out(self, found: AddressBlock) -> bool:
        """Return True if an `except` of its ipBlock contains these addresses."""
        return self.blocks is not None and any(item.holds(found) for item in self.blocks[1])


@dataclass
class _Peer:
    number: int
    terms: Terms
    ports: NamedPorts


@dataclass
class Compiler:
    """Compiles policies; numbers of subjects and peers stay the same from one state of the cluster to the next."""

    subjects: ObjectNumbers = field(default_factory=ObjectNumbers)
    peers: ObjectNumbers = field(default_factory=ObjectNumbers)

    def compile(self, policies: Sequence[Policy], inventory: Inventory) -> "Compiled":
        """Compiles for all nodes. The inventory must not contain pods that have ended."""
        return Compiled(self, policies, inventory)


class Compiled:
    """`tables` are those for a node without addresses. Raises ValueError for an invalid address block."""

    def __init__(self, numbers: Compiler, policies: Sequence[Policy], inventory: Inventory) -> None:
        self._numbers = numbers
        self._policies = policies
        self._inventory = inventory
        self._evaluation = Evaluation(inventory, policies)
        self._services = Peers(inventory)
        self._terms: dict[str, int] = {}
        self._all_terms: list[_Term] = []
        self._names: set[str] = set()
        """names of ports that rules use"""
        self._rules = {
            (index, direction): list(self._rules_of(policy, direction))
            for index, policy in enumerate(policies)
            for direction in _WORDS
        }
        self._peers: dict[int, _Peer] = {}
        self.tables = PolicyTables()
        self._add_peers()
        isolated = self._add_subjects()
        self._relays = add_translated(self.tables, numbers.peers, inventory, self._services, isolated)

    def for_node(self, name: str, reported: Sequence[str] = ()) -> PolicyTables:
        """The tables with the node's own addresses, including those that the node `reported` itself."""
        tables = PolicyTables(**{key: dict(value) for key, value in vars(self.tables).items()})
        known = (address for node in self._inventory.nodes if node.name == name for address in node.own_addresses())
        # A program that relays services may have assigned all service addresses to the node.
        services = {normal(address) for service in self._inventory.services for address in service.addresses}
        others = set(map(normal, reported)) - services
        for address in {*map(normal, known), *others}:
            # A network plugin may give the first address of the node's block to a pod.
            if self._services.pod_at(address) is None:
                tables.add_peer(block(address), UNMATCHED, PEER_NODE, f"node {name}")
        for relay in (*self._relays.get(EACH_NODE, ()), *self._relays.get(name, ())):
            tables.relay(*relay)
        return tables

    def _rules_of(self, policy: Policy, direction: int) -> Iterator[_Rule]:
        word, peers_word = _WORDS[direction]
        metadata = policy["metadata"]
        for number, rule in enumerate(policy["spec"].get(word) or ()):
            peers, ports = rule.get(peers_word), rule.get("ports") or ()
            self._names.update(port["port"] for port in ports if isinstance(port.get("port"), str))
            terms = frozenset(self._term(peer, metadata["namespace"]) for peer in peers) if peers else None
            yield _Rule(f"{metadata.get('name', '')} {word}[{number}]", terms, ports)

    def _term(self, peer: Object, namespace: str) -> int:
        found = peer.get("ipBlock")
        key = json.dumps([peer, None if found or "namespaceSelector" in peer else namespace], sort_keys=True)
        if key not in self._terms:
            self._terms[key] = len(self._all_terms)
            blocks = (block(found["cidr"]), tuple(map(block, found.get("except") or ()))) if found else None
            self._all_terms.append(_Term(key, namespace, peer, blocks))
        return self._terms[key]

    def _add_peers(self) -> None:
        found: dict[AddressBlock, Pod | Node | None] = dict.fromkeys(ALL)
        for term in self._all_terms:
            if term.blocks:
                found |= dict.fromkeys((term.blocks[0], *term.blocks[1]))
        for node in self._inventory.nodes:
            found |= dict.fromkeys(map(block, node.addresses), node)
        for pod in self._inventory.pods:
            if not pod.host_network:
                found |= dict.fromkeys(map(block, pod.addresses), pod)
        selecting: dict[_Kind, Terms] = {}
        about: dict[AddressBlock, list[int]] = {}
        for number, term in enumerate(self._all_terms):
            if term.blocks:
                about.setdefault(term.blocks[0], []).append(number)
        lengths = {cidr.bits for cidr in about}
        for place, owner in found.items():
            around = (place.around(bits) for bits in lengths if bits <= place.bits)
            numbers = (number for cidr in around for number in about.get(cidr, ()))
            terms = frozenset(number for number in numbers if not self._all_terms[number].leaves_out(place))
            ports: NamedPorts = ()
            name = f"node {owner.name}" if isinstance(owner, Node) else ""
            if isinstance(owner, Pod):
                name = f"pod {owner.namespace}/{owner.name}"
                kind = _kind(owner)
                if kind not in selecting:
                    selecting[kind] = self._terms_of(owner)
                terms |= selecting[kind]
                ports = self._named_ports(owner)
            peer = self._peer(terms, ports)
            self.tables.add_peer(place, peer, PEER, name)

    def _terms_of(self, pod: Pod) -> Terms:
        end = Endpoint(normal(pod.addresses[0]), pod, 0)
        return frozenset(
            number
            for number, term in enumerate(self._all_terms)
            if term.blocks is None and self._evaluation.is_peer(term.peer, end, term.namespace)
        )

    def _named_ports(self, pod: Pod) -> NamedPorts:
        return tuple(sorted({(port.name, port.protocol, port.port) for port in pod.ports if port.name in self._names}))

    def _peer(self, terms: Terms, ports: NamedPorts) -> int:
        if not terms and not ports:
            return UNMATCHED
        number = self._numbers.peers[frozenset(self._all_terms[term].text for term in terms), ports]
        self._peers[number] = _Peer(number, terms, ports)
        return number

    def _add_subjects(self) -> list[int]:
        """Adds all subjects and returns those that are isolated for egress."""
        isolated: dict[int, bool] = {}
        subjects: dict[tuple[_Kind, NamedPorts], int] = {}
        concerned: dict[str, list[int]] = {}
        for index, policy in enumerate(self._policies):
            concerned.setdefault(policy["metadata"]["namespace"], []).append(index)
        for namespace in concerned:
            unknown = self._numbers.subjects["unknown"]
            self.tables.add_subject(unknown, [_NOT_KNOWN], [_NOT_KNOWN])
            self.tables.namespaces[namespace] = pod_entry(unknown)
        for pod in self._inventory.pods:
            if pod.namespace in concerned:
                key = _kind(pod), self._named_ports(pod)
                if key not in subjects:
                    subjects[key] = self._subject(pod, concerned[pod.namespace], isolated)
                subject = 0 if pod.host_network else subjects[key]
                entry = pod_entry(subject, pod.addresses)
                # By UID too, for containers whose names the agent cannot read.
                self.tables.pods |= dict.fromkeys(filter(None, (f"{pod.namespace}/{pod.name}", pod.uid)), entry)
        for hash, pod in self._inventory.static_pods().items():
            if (found := self.tables.pods.get(f"{pod.namespace}/{pod.name}")) is not None:
                self.tables.pods[hash] = found
        return [subject for subject, egress in isolated.items() if egress]

    def _subject(self, pod: Pod, policies: Sequence[int], isolated: dict[int, bool]) -> int:
        """Return the pod's subject. `policies` are its namespace's."""
        applying = {
            direction: [
                index
                for index in policies
                if self._evaluation.isolates(self._policies[index], pod, direction == INGRESS)
            ]
            for direction in _WORDS
        }
        if not any(applying.values()):
            return 0
        names = {way: [self._policies[index]["metadata"].get("name", "") for index in applying[way]] for way in _WORDS}
        ports = self._named_ports(pod)
        key = (pod.namespace, tuple(names[EGRESS]), tuple(names[INGRESS]), ports)
        subject = self._numbers.subjects[key]
        if subject in isolated:
            return subject
        isolated[subject] = bool(applying[EGRESS])
        self.tables.add_subject(subject, *(names[way] if applying[way] else None for way in (EGRESS, INGRESS)))
        for direction, indices in applying.items():
            for index in indices:
                for rule in self._rules[index, direction]:
                    self._add_rule(subject, direction, rule, ports)
        return subject

    def _add_rule(self, subject: int, direction: int, rule: _Rule, own: NamedPorts) -> None:
        about = (
            [ANYONE]
            if rule.terms is None
            else [number for number, peer in self._peers.items() if peer.terms & rule.terms]
        )
        for peer in about:
            self.tables.add_rule(subject, direction, peer, rule.name)
            if not rule.ports:
                self.tables.allow(subject, direction, peer)
        for port in rule.ports:
            protocol, number = port.get("protocol", "TCP"), port.get("port")
            if isinstance(number, str):
                self._add_named(subject, direction, protocol, number, about, own)
                continue
            for peer in about:
                if number is None:
                    self.tables.allow_port(subject, direction, peer, protocol)
                else:
                    for first, bits in port_prefixes(number, port.get("endPort", number)):
                        self.tables.allow_port(subject, direction, peer, protocol, first, bits)

    def _add_named(
        self, subject: int, direction: int, protocol: str, name: str, about: Iterable[int], own: NamedPorts
    ) -> None:
        """Allows a port by name. The called pod defines the name: the subject for ingress, each peer for egress."""
        for peer in about:
            if direction == INGRESS:
                targets = [(peer, own)]
            elif peer == ANYONE:
                targets = [(found.number, found.ports) for found in self._peers.values()]
            else:
                targets = [(peer, self._peers[peer].ports)]
            for target, ports in targets:
                for known, of_protocol, number in ports:
                    if (known, of_protocol) == (name, protocol):
                        self.tables.allow_port(subject, direction, target, protocol, number, 16)
