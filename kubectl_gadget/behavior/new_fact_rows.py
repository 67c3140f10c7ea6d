"""The rows of `behavior check`: one for each fact that is not in the baseline, when it is first seen.

They are rows of a gadget whose record exists only here, so filters, conditions and all formats work on them. The trap:
their times are wall times already, so the clock's offset is 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kubectl_gadget.behavior.comparison import Change
from kubectl_gadget.events.batch import Batch, decode
from kubectl_gadget.events.container_lookup import Container
from kubectl_gadget.events.schema import About, Column, Gadget, Show
from kubectl_gadget.views.row_writer import RowWriter, made_layout, place

_TEXTS = ("comm", "level", "risk", "kind", "program", "value", "text", "attack", "workload", "fact", "doubt")


_FIELDS = (
    *(("timestamp", "gadget_timestamp", 8), ("cgroup", "gadget_cgroup", 8), ("pid", "__u32", 4)),
    *(("other_image", "bool", 1), *((name, "gadget_string", 4) for name in _TEXTS)),
)


def _column(name: str, description: str, show: Show = "default", width: int = 10, stretch: bool = False) -> Column:
    align: Literal["left", "right"] = "right" if name == "pid" else "left"
    return Column(name, name.upper().replace("_", " "), name, description, show, width, align, stretch)


GADGET = Gadget(
    name="behavior_check",
    command=("behavior", "check"),
    about=About("processes", "What workloads do that is not in their baseline"),
    record=made_layout("behavior_check", _FIELDS),
    columns=(
        _column("timestamp", "when it was first seen", "wide", 15),
        _column("node", "the node it happened on", width=20),
        _column("namespace", "the pod's namespace", width=12),
        _column("pod", "the pod's name", width=24),
        _column("container", "the container's name in its pod", width=14),
        _column("pid", "the process's number on the node", width=7),
        _column("comm", "the thread's name", "wide", 15),
        _column("level", "error, warning or note: how serious it may be", width=7),
        _column("risk", "what it may be", width=24),
        _column("text", "the fact in words", width=40, stretch=True),
        _column("kind", "the kind of the fact: program, open, connect, …", "wide", 10),
        _column("program", "the generalised path of the program", "json", 20),
        _column("value", "what it does it to, generalised", "json", 30),
        _column("attack", "techniques of MITRE ATT&CK that it may belong to", "wide", 14),
        _column("workload", "NAMESPACE/KIND/NAME of the workload", "json", 24),
        _column("fact", "the fact's identifier, as in baselines", "json", 16),
        _column("other_image", "whether the container runs an image that the baseline does not have", "wide", 11),
        _column("doubt", "why it may not be new: the baseline is incomplete", "json", 20),
    ),
)


@dataclass(frozen=True)
class NewFact:
    """A change and the event that it was seen in."""

    change: Change
    time: int
    """wall time in ns"""
    node: str
    container: Container
    pid: int
    comm: str


def row_batch(found: Sequence[NewFact]) -> Batch:
    writer = RowWriter(GADGET.record)
    for item in found:
        change, fact = item.change, item.change.fact
        risk, what = change.risk, (fact.program, fact.value, fact.says, " ".join(change.techniques))
        texts = (item.comm, risk.level, risk.name, str(fact.kind), *what, str(fact.workload), fact.id, change.doubt)
        values = dict(zip(_TEXTS, texts, strict=True))
        writer.add(b"", item.time, {"pid": item.pid, "other_image": change.other_image, **values})
    batch = decode(GADGET, "", writer.take())
    place(batch, (item.node for item in found), (item.container for item in found))
    return batch
