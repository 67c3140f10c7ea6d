"""Formats for profiles, which come at the end of a run and as a whole: what they share, and the folded one.

The trap: they are made of all rows, whatever a table's --max-rows leaves out.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TextIO

from kubectl_gadget.errors import UsageError
from kubectl_gadget.events.rows import Rows
from kubectl_gadget.events.schema import Gadget
from kubectl_gadget.output.escape import escape
from kubectl_gadget.output.sink import Sink
from kubectl_gadget.views.tables.call_paths import Call, Sample, has_stacks, samples

Paths = dict[tuple[Call, ...], int]
"""How much was found on each path."""


class ProfileSink(Sink):
    """Collects what the rows say until the end. Raises UsageError for gadgets that have no stacks."""

    def __init__(self, gadgets: Sequence[Gadget], format: str) -> None:
        if not has_stacks(gadgets[0]):
            raise UsageError(f"{format} is for profiles of call stacks", "kubectl gadget profile cpu")
        self.gadget = gadgets[0]
        self.samples: list[Sample] = []

    def write_block(self, rows: Rows) -> None:
        if self.gadget.totals.gauge:
            self.samples.clear()
        self.write(rows.everything)

    def write_chunk(self, rows: Rows) -> None:
        self.samples += samples(rows, self.gadget)

    def flush(self) -> None:
        """Nothing is written before the end."""

    def close(self) -> None:
        self.finish()

    @abstractmethod
    def finish(self) -> None:
        """Writes it all."""

    @property
    def paths(self) -> Paths:
        """The samples, added up by what the gadget is weighed by."""
        place = self.gadget.totals.sums.index(self.gadget.totals.weight)
        found: Paths = {}
        for sample in self.samples:
            if weight := sample.values[place]:
                found[sample.path] = found.get(sample.path, 0) + weight
        return found


class FoldedSink(ProfileSink):
    """One line per path, its steps with semicolons between, and the weight behind: `node;pod;comm;main;work 42`."""

    def __init__(self, stream: TextIO, gadgets: Sequence[Gadget]) -> None:
        super().__init__(gadgets, "-o folded")
        self._stream = stream

    def finish(self) -> None:
        for path, weight in sorted(folded(self.paths).items()):
            self._stream.write(f"{path} {weight}\n")
        self._stream.flush()


def folded(paths: Paths) -> dict[str, int]:
    """Paths as lines have them."""
    found: dict[str, int] = {}
    for path, weight in paths.items():
        line = ";".join(map(step, path))
        found[line] = found.get(line, 0) + weight
    return found


def step(call: Call) -> str:
    """One step of a line. The kernel's calls have `_[k]` behind them, as other tools mark them."""
    return escape(call.title).replace(";", ":") + ("_[k]" if call.kind == "kernel" else "")


def read_folded(text: str) -> dict[str, int]:
    """What FoldedSink wrote. Raises ValueError for anything else."""
    found: dict[str, int] = {}
    for line in filter(None, text.splitlines()):
        path, space, weight = line.rpartition(" ")
        if not space:
            raise ValueError(f"a line without a weight: {line[:80]}")
        found[path] = found.get(path, 0) + int(weight)
    return found
