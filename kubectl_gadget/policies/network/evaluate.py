"""Which flows NetworkPolicies allow, as the API defines it: policies that select a pod for a direction isolate it
there; then at least one rule of one of them has to allow the flow.

A flow is evaluated at the end where it was seen. The trap: a call to a service counts as blocked when a call to any of
its backends is, since it is unknown which of them received it.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import yaml

from kubectl_gadget.errors import UsageError
from kubectl_gadget.kube.inventory import Inventory, Pod
from kubectl_gadget.kube.label_selectors import selects
from kubectl_gadget.policies.language.policy_schema import POLICY_KINDS
from kubectl_gadget.policies.network.manifest_schema import EXPLAINED_BY, NETWORK_POLICY, VERSION
from kubectl_gadget.policies.network.peers import NAMESPACE_LABEL, PROTOCOLS, Endpoint, Peers, Use, is_own, normal
from kubectl_gadget.yaml_files import Place, parse_yaml
from kubectl_gadget.yaml_reader import Problems, check, constructed, documents, inside, items_of, peek

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
        """Whether this policy selects the pod for a direction, so that only flows that policies allow are allowed."""
        spec = policy["spec"]
        if policy["metadata"]["namespace"] != pod.namespace or not selects(spec.get("podSelector"), pod.labels):
            return False
        types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
        return ("Ingress" if ingress else "Egress") in types

    def allows(self, policy: Policy, end: Endpoint, pod: Pod, protocol: str, ingress: bool) -> bool:
        """Whether one of its rules allows the pod to communicate with this end."""
        target = pod if ingress else end.pod
        for rule in policy["spec"].get("ingress" if ingress else "egress") or ():
            peers, ports = rule.get("from" if ingress else "to"), rule.get("ports")
            if ports and not any(_has_port(port, protocol, end.port, target) for port in ports):
                continue
            if not peers or any(self.is_peer(peer, end, policy["metadata"]["namespace"]) for peer in peers):
                return True
        return False

    def is_peer(self, peer: Mapping[str, Any], end: Endpoint, namespace: str) -> bool:
        """Whether one entry of `from` or `to`, in a policy of `namespace`, matches this end."""
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
