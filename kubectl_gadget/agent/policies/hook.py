"""One hook of policies on a node: bpf/policy.bpf.c with the hook's constants and tables, attached by the first of its
ways that the kernel accepts.

The trap: the maps in SHARED belong to the object that was loaded first, so all objects are closed together.
"""

import os
import re
import struct
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from kubectl_gadget.agent.bpf import btf, libbpf
from kubectl_gadget.agent.bpf.btf import Btf, ValueType
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.links import MappingEvents, wait_for_programs
from kubectl_gadget.agent.bpf.maps import BpfMap
from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.bpf.syscall_programs import SyscallDispatcher, SyscallObject
from kubectl_gadget.agent.host.this_node import TRACEFS_FOLDERS, tracefs
from kubectl_gadget.agent.kernel import hooks
from kubectl_gadget.agent.kernel.hooks import hookable_functions
from kubectl_gadget.agent.policies.files import RealFiles, SameFiles, UprobeTargets
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


# The parts of a policy's slots that depend on the node's kernel: offsets of struct members and of tracepoints'
# fields, and the types of arguments (`auto`).
#
# RUN's `resolve` has the slots that need it (docs/protocol.md, "Policies"); the results are written into the slots.

SLOT_BYTES = 40
_SIGNED, _USER, _EMBEDDED = 1, 2, 4
"""enum policy_flag."""
_AUTO, _NUMBER, _STRING, _BUFFER, _DATA_LOC, _IOVEC = 0, 1, 2, 3, 21, 22
"""enum policy_type."""

# Types and offsets by BTF. The trap: BTF does not distinguish pointers into the caller's memory from others, so this is
# not used for arguments of system calls.

_MOST_STEPS = 6
_STRUCTS = {
    **{"file": 4, "path": 5, "dentry": 7, "linux_binprm": 8, "sock": 9, "socket": 10, "sockaddr": 11, "cred": 12},
    **{"kiocb": 13, "user_namespace": 14, "module": 15, "bpf_map": 16, "bpf_prog": 17, "net_device": 18, "sk_buff": 19},
    **{"iov_iter": 23, "load_info": 24, "bpf_attr": 25, "perf_event": 26},
}
"""enum policy_type, by the type that is pointed to."""
_WITHOUT_TEXT = (9, 10, 12, 14, 19)


def resolve(slots: bytes, entries: Iterable[Resolve], way: Way) -> bytes:
    """Returns the slots, with the offsets and types of this kernel. Raises AgentError and FrameError."""
    found = bytearray(slots)
    for entry in entries:
        kernel = _types(entry)
        start = _start(kernel, entry, way)
        steps, end = kernel.follow(start, entry.path) if entry.path else ([], start)
        if len(steps) > _MOST_STEPS:
            raise AgentError(f"{len(steps)} pointers to follow; at most {_MOST_STEPS} are supported")
        at = SLOT_BYTES * entry.slot
        if not 0 <= at <= len(found) - SLOT_BYTES:
            raise FrameError(f"RUN: `resolve` has the slot {entry.slot}, of {len(found) // SLOT_BYTES}")
        value = kernel.value_type(end)
        if steps and value.is_in_place:
            found[at + 2] |= _EMBEDDED
        if steps:
            struct.pack_into(f"<I{len(steps)}I", found, at + 12, len(steps), *steps)
        if entry.auto:
            _decide(found, at, value, entry, way)
    return bytes(found)


def _types(entry: Resolve) -> Btf:
    """Returns the BTF to use: of the kernel, one of its modules, or a file. Raises AgentError."""
    if module := entry.module:
        return btf.module(module)
    if path := entry.btf:
        return btf.in_file(path)
    return btf.kernel()


def _start(kernel: Btf, entry: Resolve, way: Way) -> int:
    """Returns the type at which `path` starts."""
    named = {"task": "task_struct", "registers": "pt_regs"}.get(entry.source, entry.struct)
    if named:
        id = kernel.struct(named)
        if id is None:
            raise AgentError(f"{kernel.whose} has no struct {named}")
        return id
    name = way.target
    if way.kind == "raw_tracepoint":
        prototype = kernel.tracepoint(name)
    else:
        prototype = kernel.prototype(f"bpf_lsm_{name}" if way.kind == "lsm" else name)
    if entry.source == "return":
        if prototype is None or not prototype.result:
            raise AgentError(f"{name} returns nothing")
        return prototype.result
    if prototype is None or not 0 <= entry.index < len(prototype.parameters):
        raise AgentError(f"{name} has no parameter {entry.index}")
    return prototype.parameters[entry.index]


def _decide(slots: bytearray, at: int, value: ValueType, entry: Resolve, way: Way) -> None:
    type, size, flags = _NUMBER, 8, 0
    if value.is_text:
        type = _STRING
    elif value.name in _STRUCTS:
        type = _STRUCTS[value.name]
    elif not value.is_pointer:
        size, flags = value.size, _SIGNED if value.signed else 0
        if size not in (1, 2, 4, 8):
            raise AgentError(f"argument {entry.index} of {way.target} is a {value.name}, which cannot be read")
    compared = entry.compared
    if (compared and (compared == "number") != (type == _NUMBER)) or (compared == "text" and type in _WITHOUT_TEXT):
        what = f"argument {entry.index} of {way.target} is a {value.name or 'text'} on this node"
        raise AgentError(f"{what}, which cannot be compared with a {compared}", "the argument's type in the policy")
    slots[at], slots[at + 3] = type, size
    slots[at + 2] |= flags


# Offsets of the fields of a tracepoint's record on this kernel, as tracefs lists them, for slots of policies.
#
# Policies number fields in the order of `format`, from 0, including the common ones. An array is in the record itself,
# and a `__data_loc` field has the offset of text after the fields; only other texts are pointers.

_CONTEXT, _CONTEXT_ADDRESS = 3, 7
"""enum policy_source."""
_OF_SYSCALLS = "syscalls/"
_NARROW = {
    **dict.fromkeys(("int", "pid_t", "clockid_t", "timer_t", "key_t", "mqd_t", "rwf_t"), (4, True)),
    **dict.fromkeys(("unsigned int", "unsigned", "uid_t", "gid_t", "qid_t"), (4, False)),
    **dict.fromkeys(("long", "off_t", "loff_t", "ssize_t"), (8, True)),
    **{"umode_t": (2, False)},
}
"""Size of system call arguments, and whether they are signed. In the record all are as wide as a register and
unsigned."""
_NUMBER_OF_CALL = 8
"""Offset of the system call's number; its arguments follow."""
_HEAD = struct.Struct("<4B2H")
_FIELD = re.compile(
    r"\tfield:(?P<declared>[^;]+);\s+offset:(?P<offset>\d+);\s+size:(?P<size>\d+);(\s+signed:(?P<signed>[01]);)?"
)
_ARRAY = re.compile(r"\[(\d+)\]$")
_TEXT = re.compile(r"\bchar\b")


class TracepointField(NamedTuple):
    """`declared` is the C declaration: "char comm[16]"."""

    declared: str
    offset: int
    size: int
    is_signed: bool = False

    @property
    def is_located(self) -> bool:
        """True if the field is the offset of its value (`__data_loc`)."""
        return self.declared.startswith("__data_loc ")

    @property
    def is_array(self) -> bool:
        return "[" in self.declared and not self.is_located

    @property
    def is_text(self) -> bool:
        """True if the field is an array of characters, in the record or elsewhere, or a pointer to them."""
        parts = self.declared.removeprefix("__data_loc ")
        return bool(_TEXT.search(parts)) and ("[" in parts or "*" in parts)

    @property
    def number_size(self) -> int:
        """Size of a number, or of one element of an array of numbers."""
        length = _ARRAY.search(self.declared)
        return self.size // int(length[1]) if length and int(length[1]) else self.size


def fields(tracepoint: str) -> list[TracepointField]:
    """Returns the fields of a tracepoint such as "sched/sched_switch". Raises AgentError."""
    try:
        with open(f"{tracefs() or TRACEFS_FOLDERS[0]}/events/{tracepoint}/format", encoding="utf-8") as text:
            return [
                TracepointField(one["declared"], int(one["offset"]), int(one["size"]), one["signed"] == "1")
                for one in map(_FIELD.match, text)
                if one
            ]
    except OSError as error:
        what = f"the fields of {tracepoint} cannot be read: {error}"
        raise AgentError(what, "mount -t tracefs nodev /sys/kernel/tracing on the node; or raw: true") from None


def place_fields(slots: bytes, tracepoint: str, compared: Mapping[int, str | None]) -> bytes:
    """Returns the slots with offsets in place of field numbers, and with the types that the policy left open.
    `compared` has, by slot number, the type that filters compare an open slot with. Raises AgentError when a field does
    not exist, or does not have the slot's type."""
    known = fields(tracepoint)
    placed = bytearray(slots)
    for start in range(0, len(slots), SLOT_BYTES):
        type, source, flags, size, index, size_index = _HEAD.unpack_from(slots, start)
        if source != _CONTEXT:
            continue
        field = _field(known, tracepoint, index)
        if type == _AUTO:
            type, flags, size = _decided(field, flags, tracepoint)
            wanted = compared.get(start // SLOT_BYTES)
            if wanted and (wanted == "number") != (type == _NUMBER):
                what = f"{tracepoint}: the field {index}, {field.declared}, cannot be compared with a {wanted}"
                raise AgentError(what, "the argument's type in the policy")
        if type == _NUMBER:
            # From an array, the requested number of bytes is read, from its start.
            if field.number_size not in (1, 2, 4, 8) or field.is_located:
                raise AgentError(f"{tracepoint}: the field {index}, {field.declared}, is not a number")
            size = min(size, field.size if field.is_array else field.number_size)
        elif field.is_located and type in (_STRING, _DATA_LOC):
            type = _DATA_LOC
        elif field.is_array and type == _STRING:
            source = _CONTEXT_ADDRESS
        elif type == _DATA_LOC or field.size != 8:
            raise AgentError(f"{tracepoint}: the field {index}, {field.declared}, does not have the requested type")
        if type in (_BUFFER, _IOVEC):
            size_index = _field(known, tracepoint, size_index).offset
        _HEAD.pack_into(placed, start, type, source, flags, size, field.offset, size_index)
    return bytes(placed)


def _decided(field: TracepointField, flags: int, tracepoint: str) -> tuple[int, int, int]:
    """Returns type, flags and size of a field whose type the policy does not give."""
    of_call = tracepoint.startswith(_OF_SYSCALLS)
    if not field.is_text:
        size, signed = field.number_size, field.is_signed
        if of_call and field.offset > _NUMBER_OF_CALL:
            size, signed = _NARROW.get(field.declared.rpartition(" ")[0], (size, signed))
        return _NUMBER, flags | (_SIGNED if signed else 0), size
    # Arguments of system calls point into the caller's memory.
    return _STRING, flags | (_USER if "*" in field.declared and of_call else 0), 8


def is_field(entry: Resolve) -> bool:
    """True if an entry of RUN's `resolve` only leaves a field's type open; the others need BTF."""
    return entry.auto and entry.source == "parameter" and not entry.struct


def _field(known: list[TracepointField], tracepoint: str, index: int) -> TracepointField:
    if index >= len(known):
        names = ", ".join(f"{number} {field.declared}" for number, field in enumerate(known))
        raise AgentError(f"{tracepoint} has no field {index}; its fields are: {names}")
    return known[index]
