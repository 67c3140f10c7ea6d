"""The engine of policies on a node: bpf/policy.bpf.c, loaded once for each hook with the hook's tables.

It knows no policies, only programs, where they go, constants, and entries of maps (docs/protocol.md, "Policies"). To a
session it looks like a gadget. The trap: the maps in SHARED belong to the object that was loaded first, so objects are
closed together. A hook is attached at once, since only that tells whether the kernel lets it; it asks no policy until
profiles are set, so none is in force by half.
"""

import base64
import os
import struct
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from kubectl_gadget.agent import counters, function_lists, libbpf, refusal, slot_types, tracepoint_format, ways
from kubectl_gadget.agent.answer import Answer
from kubectl_gadget.agent.counters import CpuCounters
from kubectl_gadget.agent.followed_files import MAPS as FOLLOWED_MAPS
from kubectl_gadget.agent.followed_files import FollowedFiles
from kubectl_gadget.agent.fresh_records import FreshRecords
from kubectl_gadget.agent.gadget import DEFAULT_RING_BYTES, ring_bytes
from kubectl_gadget.agent.identity import Container
from kubectl_gadget.agent.libbpf import Failure
from kubectl_gadget.agent.mapping_events import MappingEvents
from kubectl_gadget.agent.object import BpfMap, BpfObject
from kubectl_gadget.agent.outgoing import Outgoing
from kubectl_gadget.agent.outgoing import read as requests_of
from kubectl_gadget.agent.probes import Probes
from kubectl_gadget.agent.reaction import Reaction
from kubectl_gadget.agent.real_files import RealFiles
from kubectl_gadget.agent.ring import Ring, open_ring
from kubectl_gadget.agent.roots import Roots
from kubectl_gadget.agent.same_files import SameFiles
from kubectl_gadget.agent.scopes import NOTHING, Applicable, Scopes
from kubectl_gadget.agent.shares import Losses, Numbers
from kubectl_gadget.agent.stacks import Stacks, Symbols
from kubectl_gadget.errors import AgentError, FrameError

SHARED = (
    *("gadget_events", "gadget_cpus", "gadget_shares", "policy_containers", "policy_memory", "policy_processes"),
    *("gadget_stacks", "policy_sockets", *FOLLOWED_MAPS),
)
COUNTS = ("runs", "overridden", "signalled", "limited", "unasked", "set", "unset")
"""enum policy_count."""
_REMEMBERING = ("on_exec", "on_fork")
_AT_START = ("on_running", "on_descendant")
"""Iterators, in this order."""
_INHERITED = 1 << 31
_SETS = {"policy_profiles": 1, "policy_planes": 2, "policy_masks": 1, "policy_numbers": 1, "policy_intervals": 1}
_SETS |= {"policy_prefixes": 1, "policy_files": 1}
"""Maps whose values are that many sets of selectors."""
_LOOK_EVERY = 0.1
"""Seconds between two looks for files that probes are meant for."""
_USDT_MAPS = ("__bpf_usdt_specs", "__bpf_usdt_ip_to_spec_id")
_MOST_ROOMS, _WORD = 16, 8
"""Of events with whole buffers (POLICY_MOST_ROOMS), and bytes where there are none such."""
_SOCKETS = 16384
"""Whose owner is remembered."""
_CALLS = 8192
"""Of functions with a probe at their return that are under way at one time."""
_BEFORE_SETS = {"policy_patterns": 272, "policy_expressions": 1032}
"""Bytes of structs before the set that ends them."""


class PolicyHook:
    """One hook: the first of its ways that this kernel takes. Raises AgentError when there is none."""

    def __init__(
        self, spec: dict[str, Any], prepare: Callable[[BpfObject], None], real_files: Callable[[], RealFiles]
    ) -> None:
        self._real_files = real_files
        self.name: str = spec["name"]
        self.words: int = spec["words"]
        self.selectors: list[int] = spec["selectors"]
        self._workloads = {int(place): list(scopes) for place, scopes in spec.get("workloads", {}).items()}
        self._unsure = frozenset(spec.get("unsure", ()))
        self.policies: list[int] = spec.get("policies", [])
        """of each selector, for policies that stay in force one by one"""
        self.skipped: list[dict[str, str]] = []
        self.way: dict[str, Any] = {}
        self.probes: Probes | None = None
        """of a hook in programs, which are attached as their files are found"""
        self.files: SameFiles | None = None
        """that it compares with"""
        self._spec = spec
        self._prepare = prepare
        self._mappings: MappingEvents | None = None
        self._object: BpfObject | None = None

    @property
    def object(self) -> BpfObject:
        if self._object is None:
            raise AgentError(f"{self.name} is not loaded")
        return self._object

    def map(self, name: str) -> BpfMap:
        """A map of this hook."""
        return self.object.required_map(name)

    def link_fd(self) -> int:
        """What holds its program in place."""
        return self.object.link_fds(self.way["program"])[0]

    def detach(self) -> None:
        """Its program runs no more, unless its link is pinned."""
        if self.probes:
            self.probes.close()
        self.object.detach()

    def close(self) -> None:
        """Frees it, after detach()."""
        if self._mappings:
            self._mappings.close()
        self.object.close()

    @property
    def hook(self) -> str:
        """As STARTED names it: "lsm/file_open"."""
        return ways.name_of(self.way)

    def load(self, elf: bytes, loaded: BpfObject | None) -> bool:
        """Loads and fills the tables; `loaded` is an object that was before. False: left out, since it is optional."""
        for way in self._spec["ways"]:
            try:
                ways.check(way)
                self._try(way, elf, loaded)
            except (AgentError, Failure) as refused:
                self.skipped.append({"program": ways.name_of(way), "why": ways.why(way, refused)})
            else:
                self.way = way
                return True
        if self._spec.get("optional"):
            return False
        tried = "\n".join(f"  {skip['program']}: {skip['why']}" for skip in self.skipped)
        raise AgentError(f"no way to {self.name} on this node:\n{tried}", self._spec.get("remedy"))

    def _try(self, way: dict[str, Any], elf: bytes, loaded: BpfObject | None) -> None:
        programs = [way["program"], *way.get("also", [])]
        functions = None
        if "functions" in self._spec:
            functions = function_lists.functions(str(self._spec["functions"]))
        object = BpfObject(elf, "policy", programs)
        probes = None
        try:
            for name, value in (self._spec["variables"] | way.get("variables", {})).items():
                if not object.set_constant(name, value):
                    raise KeyError(name)
            self._resolve(object, way)
            self._prepare(object)
            if loaded is not None:
                _share(object, loaded)
            tables = _tables(self._spec["tables"])
            if way["program"] == ways.SLEEPABLE:
                tables |= self._try_lengths(object, tables.get("policy_prefixes", b""))
            self._resize(object, tables)
            if functions:
                object.required_map(function_lists.MAP).resize(len(functions))
            ways.aim(object, way)
            if "place" in way:
                probes = Probes(object, programs, way["place"], self._real_files())
                probes.prepare()
            object.load()
            for name, entries in tables.items():
                self._fill(object, name, entries)
            if functions:
                function_lists.fill(object.required_map(function_lists.MAP), functions)
            if "place" not in way:  # else to files that are looked for (probes.py)
                ways.attach(object, way, functions)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            object.close()
            raise AgentError(f"RUN's policies are not as docs/protocol.md says: {error!r}") from error
        except BaseException:
            object.close()
            raise
        if self._spec.get("mappings"):
            try:
                self._mappings = MappingEvents()
            except AgentError:
                object.close()
                raise
        if files := self._spec.get("files"):
            self.files = SameFiles(object.required_map("policy_files"), files)
        self._object = object
        self.probes = probes

    def _resolve(self, object: BpfObject, way: dict[str, Any]) -> None:
        """Members that slots lead to, where this kernel has them."""
        entries = self._spec.get("resolve", ())
        slots = bytes.fromhex(way["variables"]["policy_slots"]["hex"])
        if way.get("record"):
            slots = tracepoint_format.place(slots, way["target"])
        if entries:
            slots = slot_types.resolve(slots, entries, way)
        object.set_constant("policy_slots", {"hex": slots.hex()})

    def _resize(self, object: BpfObject, tables: dict[str, bytes]) -> None:
        for name, sets in _SETS.items():
            object.required_map(name).resize_values(8 * sets * self.words)
        for name, bytes in _BEFORE_SETS.items():
            object.required_map(name).resize_values(bytes + 8 * self.words)
        for name, data in tables.items():
            map = object.required_map(name)
            map.resize(max(1, len(data) // (map.key_size + map.value_size)))
        if not self._spec.get("files"):
            object.required_map("policy_files").resize(1)
        if entries := int(self._spec.get("limited", 0)):
            object.required_map("policy_posted").resize(entries)
        if "on_uretprobe" in object.chosen:
            object.required_map("policy_calls").resize(_CALLS)
        rooms = object.required_map("policy_rooms")
        if self._spec.get("whole"):
            count = min(_MOST_ROOMS, libbpf.load().call("libbpf_num_possible_cpus"))
            rooms.resize(count)
            object.set_constant("policy_rooms_count", count)
        else:
            rooms.resize_values(_WORD)
        if "on_usdt" not in object.chosen:
            for name in _USDT_MAPS:
                object.required_map(name).resize(1)

    def _try_lengths(self, object: BpfObject, prefixes: bytes) -> dict[str, bytes]:
        """Has prefixes looked up in a hash, length by length. The table of their lengths."""
        object.set_constant("policy_tries_lengths", True)
        map = object.required_map("policy_prefixes")
        map.make_hash()
        step = map.key_size + 8 * self.words
        lengths = {struct.unpack_from("<I", prefixes, at)[0] for at in range(0, len(prefixes), step)}
        entries = (struct.pack("<II", *entry) for entry in enumerate(sorted(lengths, reverse=True)))
        return {"policy_lengths": b"".join(entries)}

    def _fill(self, object: BpfObject, name: str, entries: bytes) -> None:
        map = object.required_map(name)
        size = map.key_size + map.value_size
        if len(entries) % size:
            raise AgentError(f"{self.name}: the table {name} has {len(entries)} bytes, no multiple of {size}")
        _put_all(map, entries)

    def bits(self, scopes: Applicable, without: Collection[int] = ()) -> int:
        """The selectors for these scopes, but those of the policies in `without`. A policy that may be for the
        container holds as if it were; so do selectors for workloads, when they are among those that hold unsure."""
        sure, wanted = set(scopes.sure), {*scopes.sure, *scopes.unsure}
        found = 0
        for place, scope in enumerate(self.selectors):
            workloads = self._workloads.get(place, ())
            allowed = wanted if place in self._unsure else sure
            if scope in wanted and all(each in allowed for each in workloads):
                found |= 1 << place
        for place, policy in enumerate(self.policies if without else ()):
            if policy in without:
                found &= ~(1 << place)
        return found

    def set_profile(self, number: int, bits: int) -> None:
        """Lets a profile have these selectors."""
        self.map("policy_profiles").put(struct.pack("<I", number), bits.to_bytes(8 * self.words, "little"))

    def profiles(self) -> dict[int, int]:
        """The selectors of each profile that has any."""
        map = self.map("policy_profiles")
        found = {struct.unpack("<I", key)[0]: map.get(key) for key in list(map.keys())}
        return {number: int.from_bytes(value, "little") for number, value in found.items() if value is not None}

    def counts(self) -> dict[str, int]:
        """Since the start, by COUNTS; hooks of an earlier version, which were taken over, have fewer."""
        map = self.map("policy_counts")
        return {name: sum(map.per_cpu(number)) for number, name in enumerate(COUNTS[: map.entries])}


class Policies:
    """All hooks of a session. `spec` is RUN's gadget of the kind `policy`."""

    def __init__(self, index: int, spec: dict[str, Any], elf: bytes, node: dict[str, int], containers_fd: int) -> None:
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
        self._containers_fd = containers_fd
        self.hooks: list[PolicyHook] = []
        self.failed: dict[str, AgentError] = {}
        """hooks that this node does not have, with `tolerant`; their policies are not in force at all"""
        self.without: set[int] = set()
        self._processes: BpfObject | None = None
        self._adopted: list[int] = []
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
                    else:
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
            self._remember(self.hooks[0].object)
            self._open_ring()
            if self._spec.get("stacks"):
                self.stacks = Stacks(self.hooks[0].map("gadget_stacks"), self.symbols, with_offsets=True)
            self._profile(self._scopes.of_unknown() if self.filter_is_open else NOTHING)
            self._look_for_files()
        except BaseException:
            self._close_hooks()
            raise
        self._elf = b""

    @property
    def remembering(self) -> list[int]:
        """Links of the programs that keep what processes had at their exec."""
        if self._processes is None:
            return self._adopted
        return [fd for program in _REMEMBERING for fd in self._processes.link_fds(program)]

    def adopt(self, hooks: Sequence[PolicyHook], without: Iterable[int], remembering: Iterable[int]) -> None:
        """Goes on with hooks that were attached before, by another process, and with `remembering` of it."""
        self.hooks = list(hooks)
        self._adopted = list(remembering)
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
        for hook in self.hooks:
            hook.detach()
        if self._processes is not None:
            self._processes.detach()
        while self._adopted:
            os.close(self._adopted.pop())
        if self._followed:
            self._followed.detach()

    def close(self) -> None:
        self.ring.close()
        self.counters.close()
        self._losses.close()
        self._close_hooks()

    def _remember(self, first: BpfObject) -> None:
        """Has the kernel keep what hooks ask of processes at their exec, from now on and of those that run."""
        spec = self._spec.get("processes")
        if spec is None:
            return
        followed = base64.b64decode(spec["followed"])
        self._processes = object = BpfObject(self._elf, "policy", [*_REMEMBERING, *_AT_START])
        try:
            self._prepare(object)
            _share(object, first)
            table = object.required_map("policy_prefixes")
            table.resize(max(1, len(followed) // (table.key_size + table.value_size)))
            object.set_constant("policy_follows", bool(followed))
            object.load()
            _put_all(table, followed)
            for program in (*_REMEMBERING, *_AT_START):
                object.attach(program)
            for program in _AT_START:
                object.iterate(program)
        except Failure as failure:
            raise AgentError(f"what processes had at their exec cannot be kept: {refusal.reason(failure)[0]}") from None

    def _close_hooks(self) -> None:
        if self._processes is not None:
            self._processes.close()
            self._processes = None
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
                _share(object, self.hooks[0].object)

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
        node = self._node | {"gadget_ring_wake_bytes": 1 if self._spec.get("kill") else size // 4}
        for name, value in (self._spec.get("parameters", {}) | node).items():
            object.set_constant(name, value)
        object.required_map("gadget_events").resize(size)
        object.required_map("gadget_cpus").resize(libbpf.load().call("libbpf_num_possible_cpus"))
        object.required_map("gadget_containers").reuse(self._containers_fd)
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


def _tables(given: dict[str, str]) -> dict[str, bytes]:
    """The entries of each map. `NAME@MACHINE` is for one architecture. Raises AgentError when it is not this one."""
    found = {}
    for key, text in given.items():
        name, _, machine = key.partition("@")
        if machine in ("", os.uname().machine):
            found[name] = base64.b64decode(text)
    for name in {key.partition("@")[0] for key in given} - found.keys():
        raise AgentError(f"{name} is for another architecture than {os.uname().machine}")
    return found


def _share(object: BpfObject, first: BpfObject) -> None:
    """The maps of the first object, before the other one is loaded."""
    for name in SHARED:
        object.required_map(name).reuse(first.required_map(name).fd)


def _put_all(map: BpfMap, entries: bytes) -> None:
    """Keys and values in turn."""
    size = map.key_size + map.value_size
    for start in range(0, len(entries), size):
        middle = start + map.key_size
        map.put(entries[start:middle], entries[middle : start + size])
