"""What profiles are drawn of: paths of calls from the outside in, each with how much was found on it.

A path begins with places, so that a graph is per container always: node, namespace/pod/container, the thread's name.
The trap: one row has two stacks, both innermost first; the kernel's goes on where the program's ends.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from kubectl_gadget.events.batch import Batch
from kubectl_gadget.events.columns.members import owner_texts
from kubectl_gadget.events.columns.stack_columns import STACK, stacks_of
from kubectl_gadget.events.columns.texts import FixedTexts
from kubectl_gadget.events.rows import Rows
from kubectl_gadget.events.schema import Gadget
from kubectl_gadget.events.stacks import UNKNOWN, Stack

Kind = Literal["place", "user", "kernel", "unknown"]
HOST = "host"
"""The place of what runs in no container."""


class Call(NamedTuple):
    """One step of a path."""

    title: str
    kind: Kind
    module: str = ""
    """of a call: the file that has it"""


class Sample(NamedTuple):
    """What one row says."""

    places: tuple[Call, ...]
    """node, container, thread"""
    calls: tuple[Call, ...]
    """outermost first"""
    pid: int
    values: tuple[int, ...]
    """the gadget's sums"""
    owner: tuple[str, str, str, str, str]
    """node, namespace, pod, container, thread"""

    @property
    def path(self) -> tuple[Call, ...]:
        return self.places + self.calls


LOST: tuple[Call, ...] = (Call("[lost]", "unknown"),)


def samples(rows: Rows, gadget: Gadget) -> list[Sample]:
    """One per row."""
    return rows.collect(lambda batch: _samples(batch, gadget))


def unit_of(gadget: Gadget, field: str) -> str:
    """nanoseconds, bytes, or count: what a sum counts."""
    return {"gadget_duration": "nanoseconds", "gadget_bytes": "bytes"}.get(gadget.record.field(field).type, "count")


def has_stacks(gadget: Gadget) -> bool:
    """Whether there is a flame graph of it."""
    return bool(gadget.totals.weight)


def _samples(batch: Batch, gadget: Gadget) -> list[Sample]:
    spelt: dict[tuple[Stack | None, bool], tuple[Call, ...]] = {}

    def calls(stacks: Iterable[Stack | None], kernel: bool) -> list[tuple[Call, ...]]:
        found = []
        for stack in stacks:
            key = stack, kernel
            if key not in spelt:
                spelt[key] = LOST if stack is None else _calls(stack, kernel)
            found.append(spelt[key])
        return found

    fields = [field for field in gadget.record.fields if field.type == STACK]
    fields.sort(key=lambda field: field.name.startswith("kernel"))
    parts = [calls(stacks_of(batch, field), field.name.startswith("kernel")) for field in fields]
    owners = [owner_texts(batch, name).values() for name in ("node", "namespace", "pod", "container")]
    comms = [text or "" for text in FixedTexts(batch.raw("comm")).texts()]
    pids = batch.raw("pid").tolist()
    sums = [batch.raw(name).tolist() for name in gadget.totals.sums]
    made = []
    for row, (owner, comm) in enumerate(zip(zip(*owners, strict=True), comms, strict=True)):
        node, *names = owner
        place = "/".join(filter(None, names)) or HOST
        places = (Call(node, "place"), Call(place, "place"), Call(comm, "place"))
        path = tuple(call for part in parts for call in part[row])
        values = tuple(values[row] for values in sums)
        made.append(Sample(places, path, pids[row], values, (*owner, comm)))
    return made


def _calls(stack: Stack, kernel: bool) -> tuple[Call, ...]:
    kind: Kind = "kernel" if kernel else "user"
    return tuple(
        # Each place in a file without symbols would be a sliver of its own.
        Call(frame.without_offset.title, "unknown" if frame.function == UNKNOWN else kind, frame.module)
        for frame in reversed(stack)
    )
