"""NetworkPolicy as its documentation words it, as plainly as can be, for what advice makes: no selectors but labels, no
named ports. It shares nothing with kubectl_gadget.advise, or mistakes there could hide one here."""

import ipaddress
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class End:
    """One end: a pod, or an address alone."""

    address: str
    namespace: str = ""
    labels: tuple[tuple[str, str], ...] = ()


def allowed(policies: list[dict[str, Any]], pod: End, ingress: bool, other: End, protocol: str, port: int) -> bool:
    """True if `pod` may talk with `other`, which calls it when `ingress`."""
    word, peers = ("Ingress", "from") if ingress else ("Egress", "to")
    isolated = False
    for policy in policies:
        spec = policy["spec"]
        if policy["metadata"]["namespace"] != pod.namespace or not has_labels(pod, spec["podSelector"]["matchLabels"]):
            continue
        if word not in spec["policyTypes"]:
            continue
        isolated = True
        for rule in spec[word.lower()]:
            if {"protocol": protocol, "port": port} not in rule["ports"]:
                continue
            for peer in rule[peers]:
                if is_peer(peer, other, pod.namespace):
                    return True
    return not isolated


def is_peer(peer: dict[str, Any], other: End, namespace: str) -> bool:
    if set(peer) == {"ipBlock"}:
        network = ipaddress.ip_network(peer["ipBlock"]["cidr"])
        return ipaddress.ip_address(other.address) in network
    if "namespaceSelector" in peer:
        (namespace,) = peer["namespaceSelector"]["matchLabels"].values()
    return other.namespace == namespace and has_labels(other, peer["podSelector"]["matchLabels"])


def has_labels(end: End, wanted: dict[str, str]) -> bool:
    return all(item in end.labels for item in wanted.items())
