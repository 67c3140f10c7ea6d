"""The data of profiles: call paths from the outermost call inwards, each with its amount.

A path starts with places, so that a graph is always split by container: node, namespace/pod/container, thread name. The
trap: one row has two stacks, both innermost first; the kernel's stack continues the program's.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.members import owner_texts
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.stacks import STACK, UNKNOWN, Stack, stacks_of
from kubectl_gadget.rows.texts import FixedTexts

Kind = Literal["place", "user", "kernel", "unknown"]
HOST = "host"
"""The place of processes outside of containers."""


class PathStep(NamedTuple):
    """One step of a path."""

    title: str
    kind: Kind
    module: str = ""
    """for a call: the file that contains it"""


class Sample(NamedTuple):
    """The content of one row."""

    places: tuple[PathStep, ...]
    """node, container, thread"""
    calls: tuple[PathStep, ...]
    """outermost first"""
    pid: int
    values: tuple[int, ...]
    """the gadget's sums"""
    owner: tuple[str, str, str, str, str]
    """node, namespace, pod, container, thread"""

    @property
    def path(self) -> tuple[PathStep, ...]:
        return self.places + self.calls


LOST: tuple[PathStep, ...] = (PathStep("[lost]", "unknown"),)


def samples(rows: Rows, gadget: Gadget) -> list[Sample]:
    """The samples, one per row."""
    return rows.collect(lambda batch: _samples(batch, gadget))


def unit_of(gadget: Gadget, field: str) -> str:
    """The unit of a sum: nanoseconds, bytes, or count."""
    return {"gadget_duration": "nanoseconds", "gadget_bytes": "bytes"}.get(gadget.record.field(field).type, "count")


def has_stacks(gadget: Gadget) -> bool:
    """True if the gadget has call stacks, as flame graphs need."""
    return bool(gadget.totals.weight)


def _samples(batch: Batch, gadget: Gadget) -> list[Sample]:
    spelt: dict[tuple[Stack | None, bool], tuple[PathStep, ...]] = {}

    def calls(stacks: Iterable[Stack | None], kernel: bool) -> list[tuple[PathStep, ...]]:
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
        places = (PathStep(node, "place"), PathStep(place, "place"), PathStep(comm, "place"))
        path = tuple(call for part in parts for call in part[row])
        values = tuple(values[row] for values in sums)
        made.append(Sample(places, path, pids[row], values, (*owner, comm)))
    return made


def _calls(stack: Stack, kernel: bool) -> tuple[PathStep, ...]:
    kind: Kind = "kernel" if kernel else "user"
    return tuple(
        # Otherwise each address in a file without symbols would be a narrow frame of its own.
        PathStep(frame.without_offset.title, "unknown" if frame.function == UNKNOWN else kind, frame.module)
        for frame in reversed(stack)
    )
