"""Placeholders for absent processes, such as the owner of a packet that has none; shown as null.

The trap: 0 is also root's user ID and the PID of the kernel's idle task, so a process is absent only if it has neither
a PID nor a name.
"""

import numpy as np

from kubectl_gadget.gadgets.schema import Field
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.columns.texts import FixedTexts
from kubectl_gadget.rows.vectors import Mask, Numbers, SomeNumbers

_ENDS = ("comm", "uid", "gid")


def pids(batch: Batch, field: Field) -> Numbers:
    """PIDs and TIDs; 0 means no process."""
    numbers = batch.raw(field)
    return SomeNumbers(numbers, numbers != 0)


def comms(batch: Batch, field: Field) -> FixedTexts:
    """Names of processes. A process that exists may have set its name to an empty one."""
    names = batch.raw(field)
    nameless = names == b""
    if not nameless.any() or (numbers := _numbers(batch, field)) is None:
        return FixedTexts(names)
    return FixedTexts(names, ~(nameless & (numbers == 0)))


def ids(batch: Batch, field: Field) -> Numbers:
    """UIDs and GIDs of processes."""
    found, numbers = batch.raw(field), _numbers(batch, field)
    if numbers is None or numbers.all():
        return Numbers(found)
    comm = f"{_prefix(field)}comm"
    named = batch.raw(comm) != b"" if _has(batch, comm) else np.zeros(len(batch), np.bool_)
    known: Mask = (numbers != 0) | named
    return SomeNumbers(found, known)


def _numbers(batch: Batch, field: Field) -> "np.ndarray[tuple[int], np.dtype[np.integer]] | None":
    """The PIDs of the processes that the field is about: peer_pid for peer_comm. None: the record has no such field."""
    name = "ppid" if field.name == "parent_comm" else f"{_prefix(field)}pid"
    return batch.raw(name) if _has(batch, name) else None


def _prefix(field: Field) -> str:
    return next((field.name.removesuffix(end) for end in _ENDS if field.name.endswith(end)), field.name)


def _has(batch: Batch, name: str) -> bool:
    return any(field.name == name for field in batch.gadget.record.fields)
