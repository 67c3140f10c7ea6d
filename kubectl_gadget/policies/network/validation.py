"""Reads NetworkPolicies from files and checks them before anything is started.

Whatever the API server would reject is rejected here, by name: a policy that is only half understood protects only
half.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from kubectl_gadget.errors import UsageError
from kubectl_gadget.policies.network.evaluate import Policy, placed_policies
from kubectl_gadget.policies.network.kernel_tables import PROTOCOLS
from kubectl_gadget.policies.network.prefixes import block
from kubectl_gadget.policies.read.policy_files import sources
from kubectl_gadget.yaml_files import Place

_SPEC = {"podSelector", "policyTypes", "ingress", "egress"}
_TYPES = {"Ingress", "Egress"}


def read_files(names: Sequence[str], namespace: str) -> list[Policy]:
    """The policies in files, folders (their .yaml, .yml and .json) or - for standard input. Raises UsageError."""
    found: list[Policy] = []
    places: dict[str, Place] = {}
    for name, text in sources(names):
        for place, policy in placed_policies(text, name, namespace):
            check(policy, f"{place} ")
            title = f"{policy['metadata']['namespace']}/{policy['metadata']['name']}"
            if title in places:
                raise UsageError(f"{place} network policy {title} is also in {places[title].position}")
            places[title] = place
            found.append(policy)
    return found


def check(policy: Policy, begin: str = "") -> None:
    """Raises UsageError, whose message begins with `begin`, with the place of anything that the API does not define."""
    metadata, spec = policy["metadata"], policy["spec"]
    where = f"{begin}network policy {metadata.get('namespace')}/{metadata.get('name')}"
    _refuse_others(spec, _SPEC, f"{where}: spec")
    if others := set(spec.get("policyTypes") or ()) - _TYPES:
        raise UsageError(f"{where}: invalid policyTypes {', '.join(map(repr, others))}", "Ingress, Egress")
    for word, peers in (("ingress", "from"), ("egress", "to")):
        for number, rule in enumerate(spec.get(word) or ()):
            place = f"{where}: {word}[{number}]"
            _refuse_others(rule, {peers, "ports"}, place)
            for port in rule.get("ports") or ():
                _check_port(port, place)
            for peer in rule.get(peers) or ():
                _check_peer(peer, place)


def _refuse_others(value: Any, known: Collection[str], place: str) -> None:
    """Rejects unknown fields: a policy in the cluster may have fields that are newer than this program."""
    if not isinstance(value, dict):
        raise UsageError(f"{place} is not an object")
    if others := value.keys() - known:
        names = ", ".join(sorted(map(str, others)))
        raise UsageError(f"{place}: unknown field {names}", f"one of {', '.join(sorted(known))}")


def _check_port(port: Mapping[str, Any], place: str) -> None:
    _refuse_others(port, {"protocol", "port", "endPort"}, f"{place}: ports")
    protocol, number, last = port.get("protocol", "TCP"), port.get("port"), port.get("endPort")
    if protocol not in PROTOCOLS:
        raise UsageError(f"{place}: invalid protocol {protocol!r}: expected one of {', '.join(PROTOCOLS)}")
    if number is not None and not isinstance(number, str) and not (isinstance(number, int) and 0 < number < 65536):
        raise UsageError(f"{place}: {number!r} is not a port")
    if last is not None and not (isinstance(number, int) and isinstance(last, int) and number <= last < 65536):
        raise UsageError(f"{place}: endPort {last!r} needs a numeric port that is not greater")


def _check_peer(peer: Mapping[str, Any], place: str) -> None:
    _refuse_others(peer, {"ipBlock", "podSelector", "namespaceSelector"}, f"{place}: a peer")
    if "ipBlock" not in peer:
        if not peer:
            raise UsageError(f"{place}: a peer is empty", "omit the list to allow all peers")
        return
    if len(peer) > 1:
        raise UsageError(f"{place}: ipBlock cannot be combined with a selector")
    try:
        whole = block(peer["ipBlock"]["cidr"])
        for cidr in peer["ipBlock"].get("except") or ():
            if block(cidr) == whole or not whole.holds(block(cidr)):
                raise ValueError(f"except {cidr} is not a smaller part of {peer['ipBlock']['cidr']}")
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{place}: invalid ipBlock: {error}") from None
