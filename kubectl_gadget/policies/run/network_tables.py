"""Network policy tables, kept up to date with the cluster or built from a file of objects.

The trap: a policy by labels means nothing when pods or namespaces may not be listed; in that case nothing is started.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

from kubectl_gadget.errors import UsageError
from kubectl_gadget.kube.api.resources import (
    ENDPOINT_SLICES,
    NAMESPACES,
    NETWORK_POLICIES,
    NODES,
    PODS,
    SERVICES,
    Object,
    Resource,
)
from kubectl_gadget.kube.informer import Follower, Objects
from kubectl_gadget.kube.inventory import Inventory, Node, Pod
from kubectl_gadget.kube.seen_inventory import service_of, slices_of
from kubectl_gadget.policies.network.compile import Compiled, Compiler
from kubectl_gadget.policies.network.evaluate import Policy
from kubectl_gadget.policies.network.kernel_tables import HOST_ENTRY, pod_entry
from kubectl_gadget.policies.network.validation import check
from kubectl_gadget.run.live_tables import Contents, LiveTables
from kubectl_gadget.yaml_files import Place, read_yaml
from kubectl_gadget.yaml_reader import constructed, documents, items_of

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
        """Replaces the objects by their present state. Policies among them are added to those of the user, which win
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


def read_objects(name: str) -> dict[Resource, list[Object]]:
    """Reads a file with the output of `kubectl get pods,namespaces,services,endpointslices,nodes -A -o yaml`."""
    kinds = {kind.kind: kind for kind in (*_KINDS, NETWORK_POLICIES)}
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
