"""The parts of a policy's slots that depend on the node's kernel: offsets of struct members and of tracepoints' fields,
and the types of arguments (`auto`).

RUN's `resolve` has the slots that need it (docs/protocol.md, "Policies"); the results are written into the slots.
"""

import re
import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from kubectl_gadget.agent.bpf import btf
from kubectl_gadget.agent.bpf.btf import Btf, ValueType
from kubectl_gadget.agent.host.this_node import TRACEFS_FOLDERS, tracefs
from kubectl_gadget.errors import AgentError, FrameError
from kubectl_gadget.wire.policy_messages import Resolve, Way

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
# Policies number fields in the order of `format`, from 0, including the common ones. The trap: an array is in the
# record itself, and a `__data_loc` field has the offset of text after the fields; only other texts are pointers.

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
