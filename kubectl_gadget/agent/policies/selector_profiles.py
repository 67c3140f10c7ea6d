"""Which selectors of each hook apply in which container. BPF programs look up a cgroup's profile, a number, and then
the profile's selectors.

All containers to which the same policies apply share a profile, so there are few. The trap: 0 is the profile of cgroups
that are not known yet, such as a container's before its names have been read.
"""

import struct
from collections.abc import Callable, Collection, Sequence

from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.containers.identity import ContainerIdentity
from kubectl_gadget.agent.policies.hook import PolicyHook
from kubectl_gadget.agent.policies.scopes import NOTHING, Applicable, Scopes
from kubectl_gadget.wire.policy_messages import LabelScopes, PolicySpec

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
        self._number(self._scopes.of_unknown() if is_open else NOTHING)

    def adopt(self) -> None:
        """Continues with the profiles that another process has set in the hooks."""
        numbers: dict[int, list[int]] = {0: [0] * len(self._hooks)}
        for place, hook in enumerate(self._hooks):
            for number, bits in hook.profiles().items():
                numbers.setdefault(number, [0] * len(self._hooks))[place] = bits
        self._numbers = {tuple(bits): number for number, bits in sorted(numbers.items(), reverse=True)}
        self._next = max(numbers) + 1

    def set_owner(self, cgroup: int, container: ContainerIdentity | None, wanted: bool) -> None:
        """As ContainerFollower.set_owner(). No policies apply to containers that the session does not want."""
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
        profile = self._number(self._scopes.of(container) if wanted else NOTHING)
        value = profile | (_INHERITED if container else 0)
        if container and container.kind == "sandbox":
            value |= _SANDBOX
        key = struct.pack("<Q", cgroup)
        try:
            self._hooks[0].map("policy_containers").put(key, struct.pack("<I", value))
        except Failure as failure:
            self._warn(f"policies are not applied in the cgroup {cgroup}: {failure}")

    def _number(self, scopes: Applicable) -> int:
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
