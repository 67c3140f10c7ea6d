"""The rows of `behavior check`: one for each fact that is not in the baseline, when it is first seen.

They are rows of a gadget whose record exists only here, so filters, conditions and all formats work on them. The trap:
their times are wall times already, so the clock's offset is 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kubectl_gadget.behavior.comparison import Change
from kubectl_gadget.rows.batch import Batch, decode
from kubectl_gadget.rows.containers import Container
from kubectl_gadget.rows.views import RowWriter, made_gadget, place

_TEXTS = ("comm", "level", "risk", "kind", "program", "value", "text", "attack", "workload", "fact", "doubt")
GADGET = made_gadget(Path(__file__).with_suffix(".yaml"))


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
