"""Placeholders for absent processes: the owner of a packet without one, the parent outside of the node. They are null.

The trap: 0 is the user number of root and the process number of the kernel's idle task, so only a process that has
neither number nor name does not exist.
"""

import numpy as np

from kubectl_gadget.events.batch import Batch
from kubectl_gadget.events.columns.texts import FixedTexts
from kubectl_gadget.events.schema import Field
from kubectl_gadget.events.vectors import Mask, Numbers, SomeNumbers

_ENDS = ("comm", "uid", "gid")


def pids(batch: Batch, field: Field) -> Numbers:
    """Numbers of processes and threads; 0 is none."""
    numbers = batch.raw(field)
    return SomeNumbers(numbers, numbers != 0)


def comms(batch: Batch, field: Field) -> FixedTexts:
    """Their names. An empty name is one that a process gave itself, where there is a process."""
    names = batch.raw(field)
    nameless = names == b""
    if not nameless.any() or (numbers := _numbers(batch, field)) is None:
        return FixedTexts(names)
    return FixedTexts(names, ~(nameless & (numbers == 0)))


def ids(batch: Batch, field: Field) -> Numbers:
    """Numbers of their users and groups."""
    found, numbers = batch.raw(field), _numbers(batch, field)
    if numbers is None or numbers.all():
        return Numbers(found)
    comm = f"{_prefix(field)}comm"
    named = batch.raw(comm) != b"" if _has(batch, comm) else np.zeros(len(batch), np.bool_)
    known: Mask = (numbers != 0) | named
    return SomeNumbers(found, known)


def _numbers(batch: Batch, field: Field) -> "np.ndarray[tuple[int], np.dtype[np.integer]] | None":
    """The numbers of the processes that the field is about: peer_pid for peer_comm. None: the record has none."""
    name = "ppid" if field.name == "parent_comm" else f"{_prefix(field)}pid"
    return batch.raw(name) if _has(batch, name) else None


def _prefix(field: Field) -> str:
    return next((field.name.removesuffix(end) for end in _ENDS if field.name.endswith(end)), field.name)


def _has(batch: Batch, name: str) -> bool:
    return any(field.name == name for field in batch.gadget.record.fields)
