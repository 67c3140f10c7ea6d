"""Labels for the policy engine: which of its scopes match the labels of each pod and each node, as these change.

Agents do not know labels, so they get the scopes in UPDATE (docs/protocol.md, "Policies"), and until then any policy
may apply to a pod. An agent guards and reports a pod that it is unsure of, so the client checks each event
again (`is_for`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from kubectl_gadget.kube.informer import Follower, Objects
from kubectl_gadget.kube.inventory import PodValues, container_key
from kubectl_gadget.kube.resources import NODES, PODS, Object, Resource
from kubectl_gadget.policies.model import Scope, by_labels, by_node, is_for_labels, is_for_node
from kubectl_gadget.run.live_tables import Contents, LiveTables
from kubectl_gadget.run.run_options import GadgetRun

_FIRST_SECONDS = 60.0
_KEEP_SECONDS = 600.0
"""Deleted pods are kept for a while, because their events may arrive later."""


class PolicyLabels:
    """Matches pods and nodes against these scopes, which are numbered in this order."""

    def __init__(self, scopes: Sequence[Scope], one_node: bool = False) -> None:
        """`one_node`: every pod is on this node, whatever name its node has."""
        self._one_node = one_node
        self.tables = LiveTables()
        self._by_labels = {number: scope for number, scope in enumerate(scopes) if by_labels(scope)}
        self._by_node = {number: scope for number, scope in enumerate(scopes) if by_node(scope)}
        self._pods: dict[str, dict[str, tuple[int, ...]]] = {}
        self._judged = PodValues[frozenset[int]]()
        self._nodes: dict[str, tuple[int, ...]] = {}

    @property
    def kinds(self) -> tuple[Resource, ...]:
        return (*((PODS,) if self._by_labels else ()), *((NODES,) if self._by_node else ()))

    def attached_to(self, gadgets: Sequence[GadgetRun]) -> tuple[GadgetRun, ...]:
        """Return the gadgets; the last one, for policies, has the scopes that apply to each pod as a table."""
        *others, of_policies = gadgets
        return (*others, replace(of_policies, tables=self.tables))

    def take(self, found: Objects) -> None:
        """Replaces the objects by their present state. May be called from any thread."""
        self.prepare(found)()

    def prepare(self, found: Objects) -> Callable[[], object]:
        """Like `take`, but return a function that makes the state visible for `is_for`; the tables have it already."""
        pods: dict[str, dict[str, tuple[int, ...]]] = {}
        judged = PodValues[frozenset[int]]()
        for pod in found.get(PODS, ()):
            node = "" if self._one_node else pod.get("spec", {}).get("nodeName") or ""
            scopes = self._of_pod(pod)
            pods.setdefault(node, {})[container_key(pod)] = scopes
            judged.put(pod, frozenset(scopes))
        commit = partial(setattr, self, "_judged", judged)
        nodes = {node["metadata"]["name"]: self._of_node(node) for node in found.get(NODES, ())}
        if (pods, nodes) == (self._pods, self._nodes):
            return commit
        self._pods, self._nodes = pods, nodes
        self.tables.replace(lambda node, addresses: self._contents(pods, nodes, node))
        return commit

    def is_for(self, scopes: Sequence[int], pod_uid: str, name: str) -> bool | None:
        """Return True if a pod's labels match all of these scopes; None: not known. Pods: by UID and NAMESPACE/NAME."""
        asked = [number for number in scopes if number in self._by_labels]
        if not asked:
            return True
        known = self._judged.of(pod_uid, name)
        return None if known is None else known.issuperset(asked)

    def _contents(
        self, pods: Mapping[str, Mapping[str, tuple[int, ...]]], nodes: Mapping[str, tuple[int, ...]], node: str
    ) -> Contents:
        if self._by_node and node not in nodes:
            return Contents()
        return Contents(labels={**pods.get(node, {}), **pods.get("", {})}, node=nodes.get(node, ()))

    def _of_pod(self, pod: Object) -> tuple[int, ...]:
        metadata = pod["metadata"]
        labels, namespace = metadata.get("labels") or {}, metadata["namespace"]
        return tuple(number for number, scope in self._by_labels.items() if is_for_labels(scope, namespace, labels))

    def _of_node(self, node: Object) -> tuple[int, ...]:
        labels = node["metadata"].get("labels") or {}
        return tuple(number for number, scope in self._by_node.items() if is_for_node(scope, labels))


def followed(labels: PolicyLabels) -> Follower:
    """Keeps the labels up to date during a run, which cannot go on without them."""
    return Follower(
        labels.kinds,
        labels.prepare,
        _FIRST_SECONDS,
        _KEEP_SECONDS,
        required=frozenset(labels.kinds),
        unchanged="the labels that policies use are not updated",
    )
