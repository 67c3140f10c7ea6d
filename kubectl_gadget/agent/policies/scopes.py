"""The policies that apply to a container, by its names: SCOPE of docs/protocol.md.

The agent decides this itself, since a container's first instruction may come before any answer of the client. Only the
client knows labels of pods and nodes. Until it has sent them, the agent does not know whether a policy that selects by
labels applies, and the selectors define what happens then (PolicyHook.bits).
"""

import struct
from collections.abc import Callable, Collection, Sequence

from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.containers.identity import ContainerIdentity
from kubectl_gadget.agent.policies.hook import Applicable, PolicyHook
from kubectl_gadget.errors import FrameError
from kubectl_gadget.wire.policy_messages import LabelScopes, PolicySpec, ScopeSpec, repository

NOTHING = Applicable()
_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


class ScopesByLabels:
    """The scopes that match the labels of the node, and of each pod, if the client has sent them."""

    def __init__(self) -> None:
        self._node: frozenset[int] | None = None
        self._pods: dict[str, frozenset[int]] = {}

    def update(self, labels: LabelScopes) -> None:
        """Applies `labels` of RUN or UPDATE."""
        self._node = frozenset(labels.node)
        for pod, scopes in labels.pods.items():
            if scopes is None:
                self._pods.pop(pod, None)
            else:
                self._pods[pod] = frozenset(scopes)

    def node(self, scope: int) -> bool | None:
        """True if the node's labels match; None if they are not known yet."""
        return None if self._node is None else scope in self._node

    def pod(self, scope: int, container: ContainerIdentity) -> bool | None:
        """True if a pod's labels match; None if they are not known yet. The client identifies pods by UID, or by
        NAMESPACE/NAME if it does not know the UID."""
        for name in (container.pod_uid, f"{container.namespace}/{container.pod}"):
            if name in self._pods:
                return scope in self._pods[name]
        return None


class PolicyScope:
    """The scope of one policy. Raises FrameError when it has an unknown operator."""

    def __init__(self, spec: ScopeSpec) -> None:
        self.pods = spec.pods
        self.host = spec.host
        self.by_node = spec.by_node
        self.by_labels = spec.by_labels
        self._namespaces = None if spec.namespaces is None else frozenset(spec.namespaces)
        self._containers = [(line.key, line.operator, frozenset(line.values)) for line in spec.containers]
        for _, operator, _ in self._containers:
            if operator not in _OPERATORS:
                raise FrameError(f"a policy's scope has the unknown operator {operator!r}")

    @property
    def is_open(self) -> bool:
        """True if it applies to every container."""
        return self.pods and self._namespaces is None and not self._containers

    def has(self, container: ContainerIdentity) -> bool:
        """True if it applies to a container of a pod, except for labels."""
        if not self.pods:
            return False
        if self._namespaces is not None and container.namespace not in self._namespaces:
            return False
        labels = {
            "name": container.container,
            "repo": repository(container.image),
            "namespace": container.namespace,
        }
        return all(_holds(labels.get(key), operator, values) for key, operator, values in self._containers)


class Scopes:
    """The scopes of all policies in a session, numbered in this order."""

    def __init__(self, specs: Sequence[ScopeSpec]) -> None:
        self._scopes = [PolicyScope(spec) for spec in specs]
        self.labels = ScopesByLabels()

    def of(self, container: ContainerIdentity | None) -> Applicable:
        """Returns the policies that apply to a container; to the host for None, and for a container without a pod. Of a
        pod's container without names, only the pod's UID is known."""
        if container and container.pod_uid and not container.pod:
            return self.of_unknown()
        if container is None or not container.pod:
            found = {number: self._node(number) for number, scope in enumerate(self._scopes) if scope.host}
        else:
            scopes = enumerate(self._scopes)
            found = {number: self._pod(number, container) for number, scope in scopes if scope.has(container)}
        return _applicable(found)

    def of_unknown(self) -> Applicable:
        """Returns the policies for a cgroup whose container has no names: those for every container. Those that select
        only by labels may apply."""
        scopes = enumerate(self._scopes)
        return _applicable(
            {
                number: self._node(number) and (None if scope.by_labels else True)
                for number, scope in scopes
                if scope.is_open
            }
        )

    def _node(self, number: int) -> bool | None:
        return self.labels.node(number) if self._scopes[number].by_node else True

    def _pod(self, number: int, container: ContainerIdentity) -> bool | None:
        verdicts = [self._node(number)]
        if self._scopes[number].by_labels:
            verdicts.append(self.labels.pod(number, container))
        return False if False in verdicts else None if None in verdicts else True


def _applicable(verdicts: dict[int, bool | None]) -> Applicable:
    return Applicable(
        tuple(number for number, holds in verdicts.items() if holds),
        tuple(number for number, holds in verdicts.items() if holds is None),
    )


def _holds(label: str | None, operator: str, values: frozenset[str]) -> bool:
    if operator in ("In", "NotIn"):
        return (label in values) == (operator == "In")
    return (label is not None) == (operator == "Exists")


# Which selectors of each hook apply in which container. BPF programs look up a cgroup's profile, a number, and then
# the profile's selectors.
#
# All containers to which the same policies apply share a profile, so there are few. The trap: 0 is the profile of
# cgroups that are not known yet, such as a container's before its names have been read.

_INHERITED, _SANDBOX = 1 << 31, 1 << 30


class Profiles:
    """A ContainerFollower. `spec` is RUN's gadget; `without` are the policies that are not in force at all."""

    def __init__(
        self, spec: PolicySpec, hooks: Sequence[PolicyHook], without: Collection[int], warn: Callable[[str], None]
    ) -> None:
        self._hooks = hooks
        self._without = without
        self._warn = warn
        self._scopes = Scopes(spec.scopes)
        if spec.labels is not None:
            self._scopes.labels.update(spec.labels)
        self._numbers: dict[tuple[int, ...], int] = {}
        """by the selectors at each hook"""
        self._unstored: set[int] = set()
        """numbers whose selectors are not in the maps of all hooks yet"""
        self._by_scopes: dict[Applicable, int] = {}
        self._cgroups: dict[int, tuple[ContainerIdentity | None, bool]] = {}
        """the owner of each cgroup, for when labels change"""
        self._next = 0

    def begin(self, is_open: bool) -> None:
        """Sets the profile of unknown cgroups. It has policies only if the session wants all containers (`is_open`)."""
        self.number(self._scopes.of_unknown() if is_open else NOTHING)

    def adopt(self) -> None:
        """Continues with the profiles that another process has set in the hooks."""
        numbers: dict[int, list[int]] = {0: [0] * len(self._hooks)}
        for place, hook in enumerate(self._hooks):
            for number, bits in hook.profiles().items():
                numbers.setdefault(number, [0] * len(self._hooks))[place] = bits
        self._numbers = {tuple(bits): number for number, bits in sorted(numbers.items(), reverse=True)}
        self._next = max(numbers) + 1

    def set_owner(self, cgroup: int, container: ContainerIdentity | None, wanted: bool) -> None:
        """Like ContainerFollower.set_owner(). No policies apply to containers that the session does not want."""
        self._cgroups[cgroup] = container, wanted
        self._assign(cgroup, container, wanted)

    def forget(self, cgroup: int) -> None:
        self._cgroups.pop(cgroup, None)
        self._hooks[0].map("policy_containers").remove(struct.pack("<Q", cgroup))

    def update(self, labels: LabelScopes) -> None:
        """Applies changed labels."""
        self._scopes.labels.update(labels)
        for cgroup, (container, wanted) in self._cgroups.items():
            self._assign(cgroup, container, wanted)

    def _assign(self, cgroup: int, container: ContainerIdentity | None, wanted: bool) -> None:
        profile = self.number(self._scopes.of(container) if wanted else NOTHING)
        value = profile | (_INHERITED if container else 0)
        if container and container.kind == "sandbox":
            value |= _SANDBOX
        key = struct.pack("<Q", cgroup)
        try:
            self._hooks[0].map("policy_containers").put(key, struct.pack("<I", value))
        except Failure as failure:
            self._warn(f"policies are not applied in the cgroup {cgroup}: {failure}")

    def number(self, scopes: Applicable) -> int:
        """Returns the number of the profile for these scopes, and creates it at first use. The first one is 0."""
        known = self._by_scopes.get(scopes)
        if known is not None:
            return known
        bits = tuple(hook.bits(scopes, self._without) for hook in self._hooks)
        number = self._numbers.get(bits)
        if number is None:
            number = self._numbers[bits] = self._next
            self._next += 1
            self._unstored.add(number)
        if number in self._unstored and self._store(number, bits):
            self._unstored.remove(number)
        if number not in self._unstored:
            self._by_scopes[scopes] = number
        return number

    def _store(self, number: int, bits: tuple[int, ...]) -> bool:
        """Puts the profile into the maps of the hooks. Returns False when one is full; the next use tries again."""
        is_stored = True
        for hook, selectors in zip(self._hooks, bits, strict=True):
            try:
                if selectors:
                    hook.set_profile(number, selectors)
            except Failure as failure:
                is_stored = False
                self._warn(f"policies are not applied at {hook.name} in some containers: {failure}")
        return is_stored
