"""The engine of policies on a node: all hooks (hook.py), and which selectors hold in which container.

It knows no policies, only programs, where they go, constants, and entries of maps (docs/protocol.md, "Policies"). To a
session it looks like a gadget. The trap: a hook is attached at once, since only that tells whether the kernel lets it;
it asks no policy until profiles are set, so none is in force by half.
"""

import struct
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kubectl_gadget.agent.answers.answer import Answer
from kubectl_gadget.agent.bpf import counters, libbpf
from kubectl_gadget.agent.bpf.counters import CpuCounters
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.links import wait_for_programs
from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.bpf.ring import Ring, open_ring
from kubectl_gadget.agent.containers.identity import Container
from kubectl_gadget.agent.containers.ring_fairness import Losses, Numbers
from kubectl_gadget.agent.gadget import DEFAULT_RING_BYTES, ring_bytes
from kubectl_gadget.agent.host.file_systems import Roots
from kubectl_gadget.agent.policies.followed_files import FollowedFiles
from kubectl_gadget.agent.policies.fresh_records import FreshRecords
from kubectl_gadget.agent.policies.hook import PolicyHook, share
from kubectl_gadget.agent.policies.processes import RememberedProcesses
from kubectl_gadget.agent.policies.reaction import Reaction
from kubectl_gadget.agent.policies.requests import Outgoing
from kubectl_gadget.agent.policies.requests import read as requests_of
from kubectl_gadget.agent.policies.same_files import SameFiles
from kubectl_gadget.agent.policies.scopes import NOTHING, Applicable, Scopes
from kubectl_gadget.agent.policies.uprobe_targets import Probes
from kubectl_gadget.agent.symbols.real_files import RealFiles
from kubectl_gadget.agent.symbols.stacks import Stacks, Symbols
from kubectl_gadget.errors import AgentError, FrameError

_INHERITED, _SANDBOX = 1 << 31, 1 << 30
_LOOK_EVERY = 0.1
"""Seconds between two looks for files that probes are meant for."""
_SOCKETS = 16384
"""Whose owner is remembered."""


class Policies:
    """All hooks of a session. `spec` is RUN's gadget of the kind `policy`."""

    def __init__(
        self, index: int, spec: dict[str, Any], elf: bytes, node: dict[str, int], shared: dict[str, int]
    ) -> None:
        self.index = index
        self.name: str = spec["name"]
        self.sequence = 0
        self.warnings: list[str] = []
        self.answer: Answer | None = None
        self.wanted_cgroup: Callable[[str], bool] = lambda path: True
        self.ring: Ring
        self.counters: CpuCounters
        self.ring_fd = -1
        self.stacks: Stacks | None = None
        self.symbols = Symbols()
        """shared by the gadgets of a session"""
        self._followed: FollowedFiles | None = None
        self.filter_is_open = False
        """whether the session wants every container; only then is anything in force in one without a name"""
        self.shares = Numbers()
        """the session's own, to name who lost events"""
        self._losses: Losses
        self._fresh = FreshRecords()
        self._reactions: list[Reaction | Outgoing] = []
        """what this agent does itself about events"""
        if kill := spec.get("kill"):
            self._reactions.append(Reaction({int(hook): int(selectors, 16) for hook, selectors in kill.items()}))
        self._spec = spec
        self._elf = elf
        self._node = node
        self._shared = shared
        self.hooks: list[PolicyHook] = []
        self.failed: dict[str, AgentError] = {}
        """hooks that this node does not have, with `tolerant`; their policies are not in force at all"""
        self.without: set[int] = set()
        self.processes = RememberedProcesses()
        self._scopes = Scopes(spec["scopes"])
        if spec.get("labels") is not None:
            self._learn(spec)
        self._profiles: dict[tuple[int, ...], int] = {}
        """by the selectors at each hook"""
        self._by_scopes: dict[Applicable, int] = {}
        self._told: dict[int, tuple[Container | None, bool]] = {}
        """by cgroup, to be judged anew when labels come"""
        self._next = 0
        self._warnings: list[str] = []
        self._roots: Roots | None = None
        self._real_files: RealFiles | None = None
        self._next_look = 0.0

    def start(self, tolerant: bool = False) -> None:
        """Loads and attaches everything; what is unknown then has its policies. Raises AgentError. `tolerant`: a hook
        that this node does not have takes its policies out, and not all of them."""
        try:
            first = self._follow()
            for spec in self._spec["hooks"]:
                hook = PolicyHook(spec, self._prepare, self._files)
                loaded = self.hooks[0].object if self.hooks else first
                try:
                    if hook.load(self._elf, loaded):
                        self.hooks.append(hook)
                    elif hook.is_needed:
                        self.warnings.append(f"{hook.name} is left out: {hook.skipped[-1]['why']}")
                except AgentError as error:
                    if not tolerant:
                        raise
                    self.failed[hook.name] = error
                    self.without.update(policy for policy in hook.policies if policy >= 0)
            if not self.hooks:
                raise AgentError("none of the policies' hooks exists on this node")
            if requests := self._spec.get("requests"):
                self._reactions.append(Outgoing(requests_of(requests)))
            if self._followed:
                self._followed.after()
            if (processes := self._spec.get("processes")) is not None:
                self.processes.load(processes, self._elf, self._prepare, self.hooks[0].object)
            self._open_ring()
            if self._spec.get("stacks"):
                self.stacks = Stacks(self.hooks[0].map("gadget_stacks"), self.symbols, with_offsets=True)
            self._profile(self._scopes.of_unknown() if self.filter_is_open else NOTHING)
            self._look_for_files()
        except BaseException:
            self._close_hooks()
            raise
        self._elf = b""

    def adopt(self, hooks: Sequence[PolicyHook], without: Iterable[int], remembering: Iterable[int]) -> None:
        """Goes on with hooks that were attached before, by another process, and with `remembering` of it."""
        self.hooks = list(hooks)
        self.processes.adopt(remembering)
        self.without = set(without)
        self._open_ring()
        numbers: dict[int, list[int]] = {0: [0] * len(self.hooks)}
        for place, hook in enumerate(self.hooks):
            for number, bits in hook.profiles().items():
                numbers.setdefault(number, [0] * len(self.hooks))[place] = bits
        self._profiles = {tuple(bits): number for number, bits in sorted(numbers.items(), reverse=True)}
        self._next = max(numbers) + 1

    def tell(self, cgroup: int, container: Container | None, wanted: bool) -> None:
        """As containers.Follower. What the session's filter does not want has no policies."""
        self._told[cgroup] = container, wanted
        self._judge(cgroup, container, wanted)

    def update(self, value: dict[str, Any]) -> None:
        """An UPDATE object with labels. Raises FrameError when it is none."""
        self._learn(value)
        for cgroup, (container, wanted) in self._told.items():
            self._judge(cgroup, container, wanted)

    def _learn(self, value: dict[str, Any]) -> None:
        try:
            self._scopes.told.learn(value["labels"])
        except (KeyError, TypeError, AttributeError) as error:
            raise FrameError(f"labels are not as docs/protocol.md says: {error!r}") from error

    def _judge(self, cgroup: int, container: Container | None, wanted: bool) -> None:
        profile = self._profile(self._scopes.of(container) if wanted else NOTHING)
        value = profile | (_INHERITED if container else 0)
        if container and container.kind == "sandbox":
            value |= _SANDBOX
        key = struct.pack("<Q", cgroup)
        try:
            self.hooks[0].map("policy_containers").put(key, struct.pack("<I", value))
        except Failure as failure:
            self._warnings.append(f"policies do not hold in the cgroup {cgroup}: {failure}")

    def forget(self, cgroup: int) -> None:
        self._told.pop(cgroup, None)
        self.hooks[0].map("policy_containers").remove(struct.pack("<Q", cgroup))

    def started(self) -> dict[str, Any]:
        programs = [
            {
                "chosen": [hook.way["program"]],
                "hooks": [hook.hook],
                "skipped": hook.skipped,
                "method": hook.way["method"],
            }
            for hook in self.hooks
        ]
        return {"name": self.name, "programs": programs}

    def stats(self) -> dict[str, Any]:
        cpus = self.counters
        hooks = {f"{hook.name} by {hook.hook}": hook.counts() for hook in self.hooks}
        lost = {"ring_full": cpus.by_cpu(counters.LOST_RING_FULL), "map_full": cpus.by_cpu(counters.LOST_MAP_FULL)}
        return {
            "events": cpus.total(counters.EVENTS),
            "bytes": cpus.total(counters.BYTES),
            "lost": {cause: by_cpu for cause, by_cpu in lost.items() if by_cpu},
            "cut_strings": cpus.total(counters.CUT_STRINGS),
            "lost_by": self._losses.told(self.shares) if lost["ring_full"] else [],
            "hooks": hooks,
        } | {name: count for reaction in self._reactions for name, count in reaction.stats().items()}

    def turn(self) -> list[str]:
        """Sets probes in files that are new. What could not be put in force since the last call."""
        self._look_for_files()
        warnings, self._warnings = self._warnings, []
        for reaction in self._reactions:
            said, reaction.warnings = reaction.warnings, []
            warnings += said
        return warnings

    def react(self) -> None:
        """Acts on events up to the settled position, at once."""
        for record in self._fresh.of(self.ring) if self._reactions else ():
            for reaction in self._reactions:
                reaction.react(record)

    def finish(self) -> None:
        """After the last event: what was begun about events may end."""
        for reaction in self._reactions:
            reaction.finish()

    def detach(self) -> None:
        self._next_look = float("inf")
        if any([hook.release() for hook in self.hooks]):
            wait_for_programs()
        self.processes.detach()
        if self._followed:
            self._followed.detach()

    def close(self) -> None:
        self.ring.close()
        self.counters.close()
        self._losses.close()
        self._close_hooks()

    def _close_hooks(self) -> None:
        self.processes.close()
        for hook in self.hooks:
            hook.detach()
        if self._real_files:
            self._real_files.close()
        if self._followed:
            self._followed.close()
        for hook in reversed(self.hooks):
            hook.close()
        self.hooks.clear()

    def _follow(self) -> BpfObject | None:
        """Where policies follow files, an object whose maps hooks are to share, if there is one already."""
        if not self._spec.get("follows"):
            return None

        def prepare(object: BpfObject) -> None:
            self._prepare(object)
            if self.hooks:
                share(object, self.hooks[0].object)

        self._followed = FollowedFiles(self._elf, prepare)
        return self._followed.before()

    def _files(self) -> RealFiles:
        """Made for the first probe."""
        self._real_files = self._real_files or RealFiles()
        return self._real_files

    def _look_for_files(self) -> None:
        probes: list[Probes | SameFiles] = [hook.probes for hook in self.hooks if hook.probes]
        probes += [hook.files for hook in self.hooks if hook.files]
        now = time.monotonic()
        if not probes or now < self._next_look:
            return
        self._next_look = now + _LOOK_EVERY
        self._roots = self._roots or Roots(self.wanted_cgroup)
        roots = self._roots.look()
        for each in probes:
            each.turn(roots)
            self._warnings += each.take_warnings()

    def _prepare(self, object: BpfObject) -> None:
        size = ring_bytes(self._spec.get("ring_bytes") or DEFAULT_RING_BYTES)
        # A killer is woken by each event, everybody else when there is something to ship.
        node = self._node | {"gadget_ring_wake_bytes": size // 4, "gadget_wake_each": bool(self._spec.get("kill"))}
        for name, value in (self._spec.get("parameters", {}) | node).items():
            object.set_constant(name, value)
        object.required_map("gadget_events").resize(size)
        object.required_map("gadget_cpus").resize(libbpf.load().call("libbpf_num_possible_cpus"))
        object.reuse(self._shared)
        if not self._spec.get("stacks"):
            object.required_map("gadget_stacks").resize(1)
        if not self._spec.get("follows"):
            object.required_map("gadget_followed").resize(1)
        if self._spec.get("tracks"):
            object.required_map("policy_sockets").resize(_SOCKETS)

    def _open_ring(self) -> None:
        events, cpus = self.hooks[0].map("gadget_events"), self.hooks[0].map("gadget_cpus")
        self.counters = CpuCounters(cpus.fd, cpus.entries)
        self.ring = open_ring(events.fd, events.entries, self.counters)
        self._losses = Losses(self.hooks[0].map("gadget_shares"))
        self.ring_fd = events.fd

    def _profile(self, scopes: Applicable) -> int:
        """Its number; 0 is that of cgroups that nobody knows yet, which came first."""
        known = self._by_scopes.get(scopes)
        if known is not None:
            return known
        bits = tuple(hook.bits(scopes, self.without) for hook in self.hooks)
        number = self._profiles.get(bits)
        if number is None:
            number = self._profiles[bits] = self._next
            self._next += 1
            for hook, selectors in zip(self.hooks, bits, strict=True):
                try:
                    if selectors:
                        hook.set_profile(number, selectors)
                except Failure as failure:
                    self._warnings.append(f"policies do not hold at {hook.name} in some containers: {failure}")
        self._by_scopes[scopes] = number
        return number
