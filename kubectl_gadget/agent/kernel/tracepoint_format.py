"""Offsets of the fields of a tracepoint's record on this kernel, as tracefs lists them, for slots of policies.

Policies number fields in the order of `format`, from 0, including the common ones. The trap: an array is in the record
itself, and a `__data_loc` field has the offset of text after the fields; only other texts are pointers.
"""

import re
import struct
from collections.abc import Mapping
from typing import NamedTuple

from kubectl_gadget.agent.host.this_node import TRACEFS_FOLDERS, tracefs
from kubectl_gadget.errors import AgentError
from kubectl_gadget.wire.policy_messages import Resolve

_AUTO, _NUMBER, _STRING, _BUFFER, _DATA_LOC, _IOVEC = 0, 1, 2, 3, 21, 22
"""enum policy_type."""
_CONTEXT, _CONTEXT_ADDRESS = 3, 7
"""enum policy_source."""
_SIGNED, _USER = 1, 2
"""enum policy_flag."""
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
_SLOT_BYTES = 40
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
        """Whether the field is the offset of its value (`__data_loc`)."""
        return self.declared.startswith("__data_loc ")

    @property
    def is_array(self) -> bool:
        return "[" in self.declared and not self.is_located

    @property
    def is_text(self) -> bool:
        """Whether the field is an array of characters, in the record or elsewhere, or a pointer to them."""
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


def place(slots: bytes, tracepoint: str, compared: Mapping[int, str | None]) -> bytes:
    """Returns the slots with offsets in place of field numbers, and with the types that the policy left open.
    `compared` has, by slot number, the type that filters compare an open slot with. Raises AgentError when a field does
    not exist, or does not have the slot's type."""
    known = fields(tracepoint)
    placed = bytearray(slots)
    for start in range(0, len(slots), _SLOT_BYTES):
        type, source, flags, size, index, size_index = _HEAD.unpack_from(slots, start)
        if source != _CONTEXT:
            continue
        field = _field(known, tracepoint, index)
        if type == _AUTO:
            type, flags, size = _decided(field, flags, tracepoint)
            wanted = compared.get(start // _SLOT_BYTES)
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
    """Whether an entry of RUN's `resolve` only leaves a field's type open; the others need BTF."""
    return entry.auto and entry.source == "parameter" and not entry.struct


def _field(known: list[TracepointField], tracepoint: str, index: int) -> TracepointField:
    if index >= len(known):
        names = ", ".join(f"{number} {field.declared}" for number, field in enumerate(known))
        raise AgentError(f"{tracepoint} has no field {index}; its fields are: {names}")
    return known[index]
