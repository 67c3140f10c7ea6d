"""Where the fields of a tracepoint's record lie on this kernel, as tracefs lists them, for slots of policies.

Policies count fields as `format` lists them, from 0, the common ones included. The trap: an array lies in the record
itself, and a `__data_loc` field says where a text lies behind it; only other texts are pointers.
"""

import re
import struct
from typing import NamedTuple

from kubectl_gadget.agent.probe import TRACING
from kubectl_gadget.errors import AgentError

_NUMBER, _STRING, _BUFFER, _DATA_LOC, _IOVEC = 1, 2, 3, 21, 22
"""enum policy_type."""
_CONTEXT, _CONTEXT_ADDRESS = 3, 7
"""enum policy_source."""
_HEAD = struct.Struct("<4B2H")
_SLOT_BYTES = 40
_FIELD = re.compile(r"\tfield:(?P<declared>[^;]+);\s+offset:(?P<offset>\d+);\s+size:(?P<size>\d+);")


class Field(NamedTuple):
    """`declared` is C: "char comm[16]"."""

    declared: str
    offset: int
    size: int

    @property
    def is_located(self) -> bool:
        """It says where the value lies."""
        return self.declared.startswith("__data_loc ")

    @property
    def is_array(self) -> bool:
        return "[" in self.declared and not self.is_located


def fields(tracepoint: str) -> list[Field]:
    """Of "sched/sched_switch". Raises AgentError."""
    for folder in TRACING:
        try:
            with open(f"{folder}/events/{tracepoint}/format", encoding="utf-8") as text:
                found = map(_FIELD.match, text)
                return [Field(one["declared"], int(one["offset"]), int(one["size"])) for one in found if one]
        except OSError as failure:
            error = failure
    what = f"the fields of {tracepoint} cannot be read: {error}"
    raise AgentError(what, "mount -t tracefs nodev /sys/kernel/tracing on the node; or raw: true")


def place(slots: bytes, tracepoint: str) -> bytes:
    """Slots whose `index` is a field's number, with its place instead. Raises AgentError for a field that is not there,
    or is not of the slot's type."""
    known = fields(tracepoint)
    placed = bytearray(slots)
    for start in range(0, len(slots), _SLOT_BYTES):
        type, source, flags, size, index, size_index = _HEAD.unpack_from(slots, start)
        if source != _CONTEXT:
            continue
        field = _field(known, tracepoint, index)
        if type == _NUMBER:
            if field.is_array or field.size not in (1, 2, 4, 8):
                raise AgentError(f"{tracepoint}: the field {index}, {field.declared}, is no number")
            size = min(size, field.size)
        elif field.is_located and type in (_STRING, _DATA_LOC):
            type = _DATA_LOC
        elif field.is_array and type == _STRING:
            source = _CONTEXT_ADDRESS
        elif type == _DATA_LOC or field.size != 8:
            raise AgentError(f"{tracepoint}: the field {index}, {field.declared}, is not of the type that is asked for")
        if type in (_BUFFER, _IOVEC):
            size_index = _field(known, tracepoint, size_index).offset
        _HEAD.pack_into(placed, start, type, source, flags, size, field.offset, size_index)
    return bytes(placed)


def _field(known: list[Field], tracepoint: str, index: int) -> Field:
    if index >= len(known):
        names = ", ".join(f"{number} {field.declared}" for number, field in enumerate(known))
        raise AgentError(f"{tracepoint} has no field {index}; there are: {names}")
    return known[index]
