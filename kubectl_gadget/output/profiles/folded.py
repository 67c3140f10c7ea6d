"""Common parts of the formats for profiles, which are written as a whole at the end of a run; and the folded format.

The trap: they use all rows, including those that a table's --max-rows leaves out.
"""

from collections.abc import Sequence
from typing import TextIO

from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.output.escape import escape
from kubectl_gadget.output.sink import Sink
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.tables.call_paths import PathStep, Sample, has_stacks, samples

Paths = dict[tuple[PathStep, ...], int]
"""The weight of each path."""


class ProfileSink(Sink):
    """Collects samples until the end. Raises UsageError for gadgets without stacks."""

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
        """Does nothing: `close` writes the whole profile."""

    @property
    def paths(self) -> Paths:
        """The sums of samples per path, by the gadget's weight."""
        place = self.gadget.totals.sums.index(self.gadget.totals.weight)
        found: Paths = {}
        for sample in self.samples:
            if weight := sample.values[place]:
                found[sample.path] = found.get(sample.path, 0) + weight
        return found


class FoldedSink(ProfileSink):
    """One line per path: its steps separated by semicolons, then the weight: `node;pod;comm;main;work 42`."""

    def __init__(self, stream: TextIO, gadgets: Sequence[Gadget]) -> None:
        super().__init__(gadgets, "-o folded")
        self._stream = stream

    def close(self) -> None:
        for path, weight in sorted(folded(self.paths).items()):
            self._stream.write(f"{path} {weight}\n")
        self._stream.flush()


def folded(paths: Paths) -> dict[str, int]:
    """Weights by path in the text form of lines."""
    found: dict[str, int] = {}
    for path, weight in paths.items():
        line = ";".join(map(step, path))
        found[line] = found.get(line, 0) + weight
    return found


def step(call: PathStep) -> str:
    """One step of a line. The kernel's calls end with `_[k]`, as in other tools."""
    return escape(call.title).replace(";", ":") + ("_[k]" if call.kind == "kernel" else "")


def read_folded(text: str) -> dict[str, int]:
    """Parses the output of FoldedSink. Raises ValueError for anything else."""
    found: dict[str, int] = {}
    for line in filter(None, text.splitlines()):
        path, space, weight = line.rpartition(" ")
        if not space:
            raise ValueError(f"a line without a weight: {line[:80]}")
        found[path] = found.get(path, 0) + int(weight)
    return found
