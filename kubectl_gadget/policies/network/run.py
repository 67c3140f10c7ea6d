"""The parts of a run of NetworkPolicies: policies from files, checked before anything is started, and tables for the
kernel that are kept up to date with the cluster.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from kubectl_gadget.errors import UsageError
from kubectl_gadget.kube.informer import Follower, Objects
from kubectl_gadget.kube.inventory import Inventory, Node, Pod, service_of, slices_of
from kubectl_gadget.kube.resources import (
    ENDPOINT_SLICES,
    NAMESPACES,
    NETWORK_POLICIES,
    NODES,
    PODS,
    SERVICES,
    Object,
    Resource,
)
from kubectl_gadget.policies.network.compile import Compiled, Compiler
from kubectl_gadget.policies.network.evaluate import Policy, placed_policies
from kubectl_gadget.policies.network.kernel_tables import HOST_ENTRY, PROTOCOLS, block, pod_entry
from kubectl_gadget.policies.read.policy_files import sources
from kubectl_gadget.run.live_tables import Contents, LiveTables
from kubectl_gadget.yaml_files import Place, read_yaml
from kubectl_gadget.yaml_reader import constructed, documents, items_of

# Reads NetworkPolicies from files and checks them before anything is started.
#
# Whatever the API server would reject is rejected here, by name: a policy that is only half understood protects only
# half.

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


def _refuse_others(value: object, known: Collection[str], place: str) -> None:
    """Rejects unknown fields: a policy in the cluster may have fields that are newer than this program."""
    if not isinstance(value, dict):
        raise UsageError(f"{place} is not an object")
    if others := value.keys() - known:
        names = ", ".join(sorted(map(str, others)))
        raise UsageError(f"{place}: unknown field {names}", f"one of {', '.join(sorted(known))}")


def _check_port(port: Mapping[str, object], place: str) -> None:
    _refuse_others(port, {"protocol", "port", "endPort"}, f"{place}: ports")
    protocol, number, last = port.get("protocol", "TCP"), port.get("port"), port.get("endPort")
    if protocol not in PROTOCOLS:
        raise UsageError(f"{place}: invalid protocol {protocol!r}: expected one of {', '.join(PROTOCOLS)}")
    if number is not None and not isinstance(number, str) and not (isinstance(number, int) and 0 < number < 65536):
        raise UsageError(f"{place}: {number!r} is not a port")
    if last is not None and not (isinstance(number, int) and isinstance(last, int) and number <= last < 65536):
        raise UsageError(f"{place}: endPort {last!r} needs a numeric port that is not greater")


def _check_peer(peer: Object, place: str) -> None:
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


# Network policy tables, kept up to date with the cluster or built from a file of objects.
#
# A policy by labels means nothing when pods or namespaces may not be listed; in that case nothing is started.


_KINDS = (PODS, NAMESPACES, SERVICES, ENDPOINT_SLICES, NODES)
_NEEDED = (PODS, NAMESPACES, NETWORK_POLICIES)
_FIRST_SECONDS = 60.0
_LARGEST = 256 << 20
"""The longest output of kubectl that is read, in characters."""
NO_POLICY = "there is no NetworkPolicy yet; nothing is denied until there is one"
_EMPTY = Contents(containers="pods", other=pod_entry(0), host=HOST_ENTRY)


class LivePolicyTables:
    """Builds tables from objects, each time these change."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.tables = LiveTables()
        self._policies = policies
        self._compiler = Compiler()
        self._state: tuple[list[Policy], Inventory] | None = None

    @property
    def count(self) -> int:
        """Number of policies now."""
        return len(self._state[0]) if self._state else len(self._policies)

    def take(self, found: Objects) -> None:
        """Replaces the objects by their present state. Policies among them are added to the user's, which win
        over policies of the same name. Raises UsageError."""
        given = {_name(policy) for policy in self._policies}
        others = map(_policy, found.get(NETWORK_POLICIES, ()))
        policies = [*self._policies, *(policy for policy in others if _name(policy) not in given)]
        for policy in policies:
            check(policy)
        state = policies, inventory(found)
        if state == self._state:
            return  # most changes of objects, such as a node's health, change no table
        self._state = state
        compiled = self._compiler.compile(*state)
        self.tables.replace(cache(lambda node, addresses: contents(compiled, node, addresses)))


def contents(compiled: Compiled, node: str, addresses: tuple[str, ...] = ()) -> Contents:
    """Returns the contents of a node's tables. `addresses` are the node's, beside those that the API server knows."""
    tables = compiled.for_node(node, addresses)
    maps = {name: getattr(tables, name) for name in ("subjects", "ports", "rules", "peers")}
    return Contents(maps, _EMPTY.containers, tables.pods, tables.namespaces, _EMPTY.other, _EMPTY.host)


def inventory(found: Objects) -> Inventory:
    """Builds an inventory from the API's objects, without ended pods, whose addresses may belong to others."""
    pods = [Pod.from_object(item) for item in found.get(PODS, ())]
    slices = slices_of(found.get(ENDPOINT_SLICES, ()))
    return Inventory(
        [pod for pod in pods if not pod.ended],
        [service_of(item, slices) for item in found.get(SERVICES, ())],
        [Node.from_object(item) for item in found.get(NODES, ())],
        {item["metadata"]["name"]: dict(item["metadata"].get("labels") or {}) for item in found.get(NAMESPACES, ())},
    )


def read_objects(name: str, also: Sequence[Resource] = ()) -> dict[Resource, list[Object]]:
    """Reads a file with the output of `kubectl get pods,namespaces,services,endpointslices,nodes -A -o yaml`. `also`:
    other kinds that may be there."""
    kinds = {kind.kind: kind for kind in (*_KINDS, NETWORK_POLICIES, *also)}
    found: dict[Resource, list[Object]] = {kind: [] for kind in kinds.values()}
    for place, item in read_yaml(Path(name), lambda text: list(_objects(name, text)), _LARGEST):
        kind = kinds.get(str(item.get("kind")))
        if kind is None:
            raise UsageError(f"{place} holds a {item.get('kind')}", f"only {', '.join(kinds)} are needed")
        item["metadata"].setdefault("uid", f"{item['metadata'].get('namespace')}/{item['metadata']['name']}")
        if kind.namespaced:
            item["metadata"].setdefault("namespace", "default")
        found[kind].append(item)
    return found


def _objects(name: str, text: str) -> Iterator[tuple[Place, Object]]:
    for document in documents(name, text):
        for place, node in items_of(name, document):
            item = constructed(node)
            if not isinstance(item, dict):
                raise UsageError(f"{place} holds something that is not a Kubernetes object")
            if not isinstance(item.get("metadata"), dict) or "name" not in item["metadata"]:
                raise UsageError(f"{place} holds a {item.get('kind')} without a name")
            yield place, item


def followed(made: LivePolicyTables, from_cluster: bool, say: Callable[[str], object]) -> Follower:
    """Keeps the tables up to date during a run, which cannot go on without pods and namespaces."""

    def listed() -> None:
        if not made.count:
            say(NO_POLICY)

    return Follower(
        (*_KINDS, *((NETWORK_POLICIES,) if from_cluster else ())),
        made.take,
        _FIRST_SECONDS,
        required=frozenset(_NEEDED),
        missing="policies know some services and nodes only by their addresses",
        unchanged="the tables are not updated",
        listed=listed,
    )


def _name(policy: Policy) -> tuple[str, str]:
    return policy["metadata"]["namespace"], policy["metadata"].get("name", "")


def _policy(item: Object) -> Policy:
    return {**item, "spec": item.get("spec") or {}}
