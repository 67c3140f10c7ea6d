"""The meaning of NetworkPolicies: their fields, the owner of an address, and the flows that they allow.

This is the definition with which the tables for the kernel are compared (tests/policies/network).
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import yaml

from kubectl_gadget.errors import UsageError
from kubectl_gadget.kube.inventory import Inventory, Node, Pod, Port, Service
from kubectl_gadget.kube.resources import Object
from kubectl_gadget.kube.selectors import labels_field, metadata_field, selects
from kubectl_gadget.policies.language import POLICY_KINDS
from kubectl_gadget.yaml_files import Place, SchemaField, parse_yaml
from kubectl_gadget.yaml_reader import Problems, check, constructed, documents, inside, items_of, peek

# The fields of a NetworkPolicy (networking.k8s.io/v1), which yaml_reader.py checks.
#
# Unknown fields are rejected, since a policy that is only half understood may select other pods.

VERSION = "networking.k8s.io/v1"
EXPLAINED_BY = "kubectl explain networkpolicy."


def _object(name: str, *fields: SchemaField) -> SchemaField:
    return SchemaField(name, "object", fields=fields)


def _objects(name: str, *fields: SchemaField) -> SchemaField:
    return SchemaField(name, "list of object", fields=fields)


def _rules(name: str, peers: str) -> SchemaField:
    block = _object("ipBlock", SchemaField("cidr", "text", required=True), SchemaField("except", "list of text"))
    peer = (labels_field("podSelector"), labels_field("namespaceSelector"), block)
    port = (SchemaField("protocol", "text"), SchemaField("port", "number"), SchemaField("endPort", "number"))
    return _objects(name, _objects(peers, *peer), _objects("ports", *port))


NETWORK_POLICY = _object(
    "policy",
    SchemaField("apiVersion", "text", required=True),
    SchemaField("kind", "text", required=True),
    metadata_field(),
    _object(
        "spec",
        labels_field("podSelector"),
        SchemaField("policyTypes", "list of text"),
        _rules("ingress", "from"),
        _rules("egress", "to"),
    ),
    SchemaField("status", "anything"),
)


# Who has an address: pods by labels, services by backends, nodes, or nothing known to the cluster.
#
# A program that calls a service sees the service's address, but whatever enforces policies sees the
# backend's, so a service is replaced by its backends with their ports here. And pods on the host's network have their
# node's address.


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
        self._nodes: dict[str, Node] = {normal(ip): node for node in inventory.nodes for ip in node.own_addresses()}
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
    """Return True if a pod talks to itself, which no policy can forbid."""
    remote = ipaddress.ip_address(normal(use["remote"]))
    return remote.is_loopback or (bool(use.get("local")) and normal(use["local"]) == str(remote))


def _outside(address: str) -> str:
    found = ipaddress.ip_address(address)
    if found.is_multicast:
        return "a multicast group"
    if found.is_link_local:
        return "on the node's own link, such as a DNS cache or a metadata service"
    return "not a known pod, service or node"


# Which flows NetworkPolicies allow, as the API defines it: policies that select a pod for a direction isolate it
# there; then at least one rule of one of them has to allow the flow.
#
# A flow is evaluated at the end where it was seen. A call to a service counts as blocked when a call to any of its
# backends is, since it is unknown which of them received it.


Policy = Mapping[str, Any]


@dataclass(frozen=True)
class Blocked:
    """A flow that the policies would have blocked."""

    namespace: str
    pod: str
    direction: str
    protocol: str
    remote: str
    peer: str
    port: int
    connections: int
    policies: tuple[str, ...]
    """policies that select the pod and do not allow the flow"""


def read_policies(text: str, name: str, namespace: str) -> list[Policy]:
    """The NetworkPolicies in YAML or JSON; `namespace` is for those that name none. Raises UsageError."""
    return [policy for _, policy in placed_policies(text, name, namespace)]


def placed_policies(text: str, name: str, namespace: str) -> list[tuple[Place, Policy]]:
    """The same with their places. Raises UsageError with all errors."""
    problems = Problems(NETWORK_POLICY, EXPLAINED_BY)
    found: list[tuple[Place, Policy]] = []
    for place, node in (each for document in documents(name, text) for each in items_of(name, document)):
        _check_kind(place, node)
        if whole := check(node, NETWORK_POLICY, place, problems):
            for spec in whole.nodes("spec"):
                _check_values(spec, whole.at("spec"), problems)
            item = parse_yaml(name, text, partial(constructed, node))
            metadata = {**item["metadata"], "namespace": item["metadata"].get("namespace") or namespace}
            found.append((place, {**item, "metadata": metadata, "spec": item.get("spec") or {}}))
    problems.raise_if_any()
    if not found:
        raise UsageError(f"{name} contains no NetworkPolicy")
    return found


def _check_kind(place: Place, node: yaml.Node) -> None:
    version, kind = peek(node, "apiVersion"), peek(node, "kind")
    if not kind:
        raise UsageError(f"{place} is not a Kubernetes object")
    if (version, kind) != (VERSION, "NetworkPolicy"):
        what = f"{version} {kind}" if version else f"{kind} without apiVersion"
        remedy = "kubectl gadget enforce -f, which accepts it" if kind in POLICY_KINDS else None
        raise UsageError(f"{place} is a {what}; expected {VERSION} NetworkPolicy", remedy)


def blocked(inventory: Inventory, uses: Iterable[Use], policies: Sequence[Policy]) -> list[Blocked]:
    """All flows that these policies would have blocked, in their order."""
    return list(Evaluation(inventory, policies).blocked(uses))


def _check_values(node: yaml.Node, place: Place, problems: Problems) -> None:
    """Checks values in a spec that fits the schema."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _check_values(item, inside(place, index, item), problems)
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        at = inside(place, key.value, value)
        match key.value:
            case "cidr":
                _check_block(value, at, problems)
            case "except" if isinstance(value, yaml.SequenceNode):
                for index, item in enumerate(value.value):
                    _check_block(item, inside(at, index, item), problems)
            case "matchLabels":
                pass  # its keys are free
            case _:
                _check_values(value, at, problems)


def _check_block(node: yaml.Node, place: Place, problems: Problems) -> None:
    try:
        ipaddress.ip_network(node.value, strict=False)
    except ValueError:
        problems.add(place, f"{node.value!r} is not an address block such as 10.0.0.0/8")


class Evaluation:
    """The API's rules for selectors, applied to the pods and namespaces of one inventory."""

    def __init__(self, inventory: Inventory, policies: Sequence[Policy]) -> None:
        self._inventory = inventory
        self._peers = Peers(inventory)
        self._policies = policies

    def blocked(self, uses: Iterable[Use]) -> Iterator[Blocked]:
        for use in uses:
            pod = self._inventory.pod(use["namespace"], use["pod"])
            if pod is None or pod.host_network or use["protocol"] not in PROTOCOLS or is_own(use):
                continue
            ingress = use["direction"] == "ingress"
            policies = [policy for policy in self._policies if self.isolates(policy, pod, ingress)]
            if policies and not self._all_allowed(policies, use, pod, ingress):
                yield Blocked(
                    **{name: use[name] for name in ("namespace", "pod", "direction", "protocol", "remote", "port")},
                    peer=self._peers.describe(use),
                    connections=use["connections"],
                    policies=tuple(policy["metadata"].get("name", "") for policy in policies),
                )

    def _all_allowed(self, policies: Sequence[Policy], use: Use, pod: Pod, ingress: bool) -> bool:
        if ingress:
            endpoints = [Endpoint(normal(use["remote"]), self._peers.pod_at(use["remote"]), use["port"])]
        else:
            endpoints = self._peers.endpoints(use)
        return all(
            any(self.allows(policy, endpoint, pod, use["protocol"], ingress) for policy in policies)
            for endpoint in endpoints
        )

    def isolates(self, policy: Policy, pod: Pod, ingress: bool) -> bool:
        """Return True if this policy selects the pod for a direction; then only flows that policies allow pass."""
        spec = policy["spec"]
        if policy["metadata"]["namespace"] != pod.namespace or not selects(spec.get("podSelector"), pod.labels):
            return False
        types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
        return ("Ingress" if ingress else "Egress") in types

    def allows(self, policy: Policy, end: Endpoint, pod: Pod, protocol: str, ingress: bool) -> bool:
        """Return True if one of its rules allows the pod to communicate with this end."""
        target = pod if ingress else end.pod
        for rule in policy["spec"].get("ingress" if ingress else "egress") or ():
            peers, ports = rule.get("from" if ingress else "to"), rule.get("ports")
            if ports and not any(_has_port(port, protocol, end.port, target) for port in ports):
                continue
            if not peers or any(self.is_peer(peer, end, policy["metadata"]["namespace"]) for peer in peers):
                return True
        return False

    def is_peer(self, peer: Object, end: Endpoint, namespace: str) -> bool:
        """Return True if one entry of `from` or `to`, in a policy of `namespace`, matches this end."""
        if "ipBlock" in peer:
            block, address = peer["ipBlock"], ipaddress.ip_address(end.address)
            return _in_block(address, block["cidr"]) and not any(
                _in_block(address, left_out) for left_out in block.get("except") or ()
            )
        if end.pod is None:
            return False
        if "namespaceSelector" in peer:
            labels = {NAMESPACE_LABEL: end.pod.namespace, **self._inventory.namespaces.get(end.pod.namespace, {})}
            if not selects(peer["namespaceSelector"], labels):
                return False
        elif end.pod.namespace != namespace:
            return False
        return selects(peer.get("podSelector"), end.pod.labels)


def _has_port(wanted: Mapping[str, Any], protocol: str, port: int, target: Pod | None) -> bool:
    if wanted.get("protocol", "TCP") != protocol:
        return False
    number = wanted.get("port")
    if number is None:
        return True
    if isinstance(number, str):
        named = target.ports if target else ()
        return any((item.name, item.protocol, item.port) == (number, protocol, port) for item in named)
    return bool(number <= port <= wanted.get("endPort", number))


def _in_block(address: ipaddress.IPv4Address | ipaddress.IPv6Address, cidr: str) -> bool:
    return address in ipaddress.ip_network(cidr, strict=False)
