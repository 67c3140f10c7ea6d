"""One hook of policies on a node: bpf/policy.bpf.c with the hook's constants and tables, attached by the first of its
ways that the kernel accepts.

The trap: the maps in SHARED belong to the object that was loaded first, so all objects are closed together.
"""

import os
import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.links import MappingEvents, wait_for_programs
from kubectl_gadget.agent.bpf.maps import BpfMap
from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.bpf.syscall_programs import SyscallDispatcher, SyscallObject
from kubectl_gadget.agent.kernel import hooks
from kubectl_gadget.agent.kernel.hooks import hookable_functions
from kubectl_gadget.agent.policies.files import RealFiles, SameFiles, UprobeTargets
from kubectl_gadget.agent.policies.slots import SLOT_BYTES, is_field, place_fields, resolve
from kubectl_gadget.errors import AgentError, FrameError
from kubectl_gadget.wire.agent_messages import Skipped
from kubectl_gadget.wire.policy_messages import PolicyHookSpec, Resolve, Way

SHARED = (
    *("gadget_events", "gadget_cpus", "gadget_shares", "policy_containers", "policy_memory", "policy_processes"),
    *("gadget_stacks", "policy_sockets", "gadget_followed", "gadget_followed_count"),
)
COUNTS = ("runs", "overridden", "signalled", "limited", "not evaluated", "set", "unset")
"""enum policy_count."""
_SETS = {"policy_profiles": 1, "policy_planes": 2, "policy_masks": 1, "policy_numbers": 1, "policy_intervals": 1}
_SETS |= {"policy_prefixes": 1, "policy_files": 1}
"""Maps whose values consist of that many sets of selectors."""
_USDT_MAPS = ("__bpf_usdt_specs", "__bpf_usdt_ip_to_spec_id")
_MOST_LARGE, _WORD = 16, 8
"""The most events with whole buffers that are assembled at a time (POLICY_MOST_LARGE), and the size in bytes of their
memory when a policy has none."""
_OF_TABLES = ("words", "selectors", "workloads", "unsure", "tables", "limited", "files", "whole", "policies")
"""Members of a hook's spec that its maps depend on."""
_OF_EACH = ("policy_counts", "policy_posted")
"""Maps that hooks with the same tables do not share, since the twin may be at another call."""
_FUNCTIONS = "policy_functions"
"""The map with the names of the functions at a hook, by system call number or by the cookie of the attached program."""
_CALLS = 8192
"""Most calls of functions with a return probe that run at one time."""
_WRITTEN_ONCE = (
    *("policy_planes", "policy_masks", "policy_numbers", "policy_bounds", "policy_intervals", "policy_prefixes"),
    *("policy_lengths", "policy_patterns", "policy_automata", "policy_expressions", "policy_actions"),
    *("policy_assignments", "policy_functions"),
)
"""Maps that do not change after they are filled."""
_BEFORE_SETS = {"policy_patterns": 272, "policy_expressions": 1032}
"""Size in bytes of structs before the set that ends them."""


class Applicable(NamedTuple):
    """Numbers of the scopes that apply in a container."""

    sure: tuple[int, ...] = ()
    unsure: tuple[int, ...] = ()
    """may apply: the client has not sent the labels yet"""


class PolicyHook:
    """One hook, by the first of its ways that this kernel accepts. Raises AgentError when it accepts none."""

    def __init__(
        self,
        spec: PolicyHookSpec,
        prepare: Callable[[BpfObject], None],
        real_files: Callable[[], RealFiles],
        calls: SyscallDispatcher,
        warn: Callable[[str], None],
    ) -> None:
        self._real_files = real_files
        self._warn = warn
        self._calls = calls
        self.name = spec.name
        self.words = spec.words
        self.selectors = spec.selectors
        self._workloads = spec.workloads
        self._unsure = frozenset(spec.unsure)
        self.mirrors = spec.mirrors
        self.policies = spec.policies
        """the policy of each selector; empty if policies are not in force individually"""
        self.skipped: list[Skipped] = []
        self.is_needed = True
        """for a hook that could not be loaded: whether its events can happen on this node"""
        self.way: Way
        """the way that was used, if it is loaded"""
        self.probes: UprobeTargets | None = None
        """for a hook in programs: its probes, which are attached when the files are found"""
        self.files: SameFiles | None = None
        """the files that it compares with"""
        self.spec = spec
        self._prepare = prepare
        self._mappings: MappingEvents | None = None
        self._object: BpfObject | None = None

    @property
    def object(self) -> BpfObject:
        if self._object is None:
            raise AgentError(f"{self.name} is not loaded")
        return self._object

    def map(self, name: str) -> BpfMap:
        """Returns a map of this hook."""
        return self.object.required_map(name)

    def link_fds(self) -> list[int]:
        """Returns file descriptors of its program's links; [] if the dispatcher calls the program."""
        return self.object.link_fds(self.way.program)

    def entry(self) -> tuple[int, int, int] | None:
        """Like SyscallObject.entry()."""
        return self.object.entry(self.way.program) if isinstance(self.object, SyscallObject) else None

    def stopped(self) -> str | None:
        """Returns why its program no longer runs; None if it does."""
        return next(iter(self.object.stopped().values()), None)

    def detach(self) -> None:
        """Stops its program, unless its link is pinned."""
        if self.release():
            wait_for_programs()

    def release(self) -> bool:
        """Like BpfObject.release(), unless its link is pinned."""
        if self.probes:
            self.probes.close()
        return self.object.release()

    def close(self) -> None:
        """Frees the hook, after detach()."""
        if self._mappings:
            self._mappings.close()
        self.object.close()

    @property
    def hook(self) -> str:
        """The name in STARTED: "lsm/file_open"."""
        return hooks.name_of(self.way)

    def load(self, elf: bytes, loaded: BpfObject | None, twin: "PolicyHook | None" = None) -> bool:
        """Loads and attaches the hook. `loaded` is an object that was loaded before; `twin` a hook with the same
        tables, which both then use. Returns False when an optional hook is left out."""
        needless = []
        for way in self.spec.ways:
            try:
                hooks.check(way)
                self._try(way, elf, loaded, twin.object if twin else None)
            except (AgentError, Failure) as refused:
                self.skipped.append(Skipped(program=hooks.name_of(way), why=hooks.why(way, refused)))
                needless.append(isinstance(refused, hooks.NoSuchCallsError))
            else:
                self.way = way
                return True
        if self.spec.optional:
            self.is_needed = not all(needless)
            return False
        tried = "\n".join(f"  {skip.program}: {skip.why}" for skip in self.skipped)
        raise AgentError(f"cannot attach to {self.name} on this node:\n{tried}", self._remedy())

    def _remedy(self) -> str | None:
        """Returns the remedies that help here: policies without such a way, or with a way that this kernel accepts."""
        helping = (one.text for one in self.spec.remedies if not one.ways or hooks.try_all(one.ways).way)
        return "; or ".join(helping) or None

    def has_tables_of(self, other: PolicyHookSpec) -> bool:
        """True if another hook has the same selectors and tables, as mirrors of this one do."""
        return all(getattr(self.spec, name) == getattr(other, name) for name in _OF_TABLES)

    def _try(self, way: Way, elf: bytes, loaded: BpfObject | None, twin: BpfObject | None) -> None:
        programs = [way.program, *way.also]
        functions = None
        if self.spec.functions is not None:
            functions = hookable_functions(self.spec.functions)
        object = hooks.open_object(elf, "policy", way, self._calls)
        probes = None
        with ExitStack() as undo:
            undo.callback(object.close)
            self._set_variables(object, way)
            self._resolve(object, way)
            self._prepare(object)
            if loaded is not None:
                share(object, loaded)
            tables = _tables(self.spec.tables)
            if way.program == hooks.SLEEPABLE:
                tables |= self._try_lengths(object, tables.get("policy_prefixes", b""))
            self._resize(object, tables)
            if twin:
                object.share_maps(twin, _OF_EACH)
                tables = {}
            if functions:
                object.required_map(_FUNCTIONS).resize(len(functions))
            hooks.set_target(object, way)
            if way.place is not None:
                probes = UprobeTargets(object, programs, way.place, self._real_files(), self._warn)
                probes.prepare()
            object.load()
            for name, entries in tables.items():
                self._fill(object, name, entries)
            if functions:
                names = object.required_map(_FUNCTIONS)
                for number, function in functions.items():
                    names.set_text(number, function)
            for name in () if twin else _WRITTEN_ONCE:
                object.required_map(name).freeze()
            if way.place is None:  # otherwise attached to files as they are found (UprobeTargets)
                hooks.attach(object, way, functions)
            if self.spec.mappings:
                self._mappings = MappingEvents()
            undo.pop_all()
        if self.spec.files:
            self.files = SameFiles(object.required_map("policy_files"), self.spec.files, self._warn)
        self._object = object
        self.probes = probes

    def _set_variables(self, object: BpfObject, way: Way) -> None:
        for name, value in {**self.spec.variables, **way.variables}.items():
            try:
                if not object.set_constant(name, value):
                    raise FrameError(f"RUN: {self.name} sets {name}, which the policy engine does not have")
            except (ValueError, OverflowError) as error:
                raise FrameError(f"RUN: {self.name} sets {name} to {value!r}: {error}") from None

    def _resolve(self, object: BpfObject, way: Way) -> None:
        """Resolves struct members in slots, where this kernel has them."""
        entries: Sequence[Resolve] = self.spec.resolve
        slots = way.variables.get("policy_slots")
        if not isinstance(slots, bytes) or len(slots) % SLOT_BYTES:
            raise FrameError(f"RUN: {self.name} has a way without `policy_slots`")
        if way.record:
            compared = {one.slot: one.compared for one in entries if is_field(one)}
            slots = place_fields(slots, way.target, compared)
            entries = [one for one in entries if not is_field(one)]
        if entries:
            slots = resolve(slots, entries, way)
        object.set_constant("policy_slots", slots)

    def _resize(self, object: BpfObject, tables: dict[str, bytes]) -> None:
        for name, sets in _SETS.items():
            object.required_map(name).resize_values(8 * sets * self.words)
        for name, bytes in _BEFORE_SETS.items():
            object.required_map(name).resize_values(bytes + 8 * self.words)
        for name, data in tables.items():
            map = object.required_map(name)
            map.resize(max(1, len(data) // (map.key_size + map.value_size)))
        if not self.spec.files:
            object.required_map("policy_files").resize(1)
        if self.spec.limited:
            object.required_map("policy_posted").resize(self.spec.limited)
        if "on_uretprobe" in object.chosen:
            object.required_map("policy_calls").resize(_CALLS)
        large = object.required_map("policy_large")
        if self.spec.whole:
            count = min(_MOST_LARGE, libbpf.load().call("libbpf_num_possible_cpus"))
            large.resize(count)
            object.set_constant("policy_large_count", count)
        else:
            large.resize_values(_WORD)
        if "on_usdt" not in object.chosen:
            for name in _USDT_MAPS:
                object.required_map(name).resize(1)

    def _try_lengths(self, object: BpfObject, prefixes: bytes) -> dict[str, bytes]:
        """Makes the program look up prefixes in a hash, one length after the other. Returns the table of lengths."""
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
            raise AgentError(
                f"{self.name}: the table {name} has {len(entries)} bytes, which is not a multiple of {size}"
            )
        put_all(map, entries)

    def bits(self, scopes: Applicable, without: Collection[int] = ()) -> int:
        """Returns a bit for each selector in these scopes, except those of the policies in `without`. Policies that may
        apply are included, and selectors for workloads that may apply if the spec lists them as `unsure`."""
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
        """Assigns these selectors to a profile."""
        self.map("policy_profiles").put(struct.pack("<I", number), bits.to_bytes(8 * self.words, "little"))

    def profiles(self) -> dict[int, int]:
        """Returns the bits of the selectors of each profile that has any."""
        map = self.map("policy_profiles")
        found = {struct.unpack("<I", key)[0]: map.get(key) for key in list(map.keys())}
        return {number: int.from_bytes(value, "little") for number, value in found.items() if value is not None}

    def counts(self) -> dict[str, int]:
        """Returns the counts since the start, by COUNTS. Hooks taken over from an earlier version may have fewer."""
        map = self.map("policy_counts")
        return {name: sum(map.per_cpu(number)) for number, name in enumerate(COUNTS[: map.entries])}


def share(object: BpfObject, first: BpfObject) -> None:
    """Makes the object use the maps of the first one, before it is loaded."""
    for name in SHARED:
        object.required_map(name).reuse(first.required_map(name).fd)


def put_all(map: BpfMap, entries: bytes) -> None:
    """Sets all entries; keys and values alternate."""
    size = map.key_size + map.value_size
    for start in range(0, len(entries), size):
        middle = start + map.key_size
        map.put(entries[start:middle], entries[middle : start + size])


def _tables(given: Mapping[str, bytes]) -> dict[str, bytes]:
    """Returns the entries by map. `NAME@MACHINE` is for one architecture. Raises AgentError when a map has entries only
    for other architectures."""
    found = {}
    for key, entries in given.items():
        name, _, machine = key.partition("@")
        if machine in ("", os.uname().machine):
            found[name] = entries
    for name in {key.partition("@")[0] for key in given} - found.keys():
        raise AgentError(f"{name} is for another architecture than {os.uname().machine}")
    return found
