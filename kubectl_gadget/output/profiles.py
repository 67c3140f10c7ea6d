"""Profiles: call paths with their amounts, and the formats that are written as a whole at the end of a run.

The formats use all rows, including rows that a table's --max-rows leaves out.
"""

import gzip
import json
import time
from collections.abc import Iterable, Sequence
from typing import BinaryIO, Literal, NamedTuple, TextIO

from kubectl_gadget import __version__
from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.output.escape import escape
from kubectl_gadget.output.sink import Sink
from kubectl_gadget.output.terminal import Terminal
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.members import owner_texts
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.stacks import STACK, UNKNOWN, Stack, stacks_of
from kubectl_gadget.rows.texts import FixedTexts

# The data of profiles: call paths from the outermost call inwards, each with its amount.


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


# What the formats share, and the folded format.


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


# Profiles for `go tool pprof` and similar tools: profile.proto, compressed with gzip.


# Field numbers, https://github.com/google/pprof/blob/main/proto/profile.proto
_SAMPLE_TYPE, _SAMPLE, _MAPPING, _LOCATION, _FUNCTION, _STRING, _TIME, _DEFAULT = 1, 2, 3, 4, 5, 6, 9, 14
_LABELS = ("node", "namespace", "pod", "container", "comm")


class PprofSink(ProfileSink):
    """Writes one profile, whose samples have the labels node, namespace, pod, container, comm and pid."""

    def __init__(self, stream: TextIO, gadgets: Sequence[Gadget], terminal: Terminal | None) -> None:
        super().__init__(gadgets, "-o pprof")
        if terminal is not None:
            raise UsageError(
                "-o pprof is binary and not for a terminal",
                "end the command with `> cpu.pb.gz`, then: go tool pprof cpu.pb.gz",
            )
        self._stream: BinaryIO = stream.buffer

    def close(self) -> None:
        self._stream.write(gzip.compress(encode(self.gadget, self.samples, time.time_ns())))
        self._stream.flush()


class _Numbers:
    """Numbers texts, files and functions in order of first use."""

    def __init__(self) -> None:
        self.texts: dict[str, int] = {"": 0}
        self.modules: dict[str, int] = {}
        self.calls: dict[PathStep, int] = {}

    def text(self, text: str) -> int:
        return self.texts.setdefault(text, len(self.texts))

    def call(self, call: PathStep) -> int:
        return self.calls.setdefault(call, len(self.calls) + 1)

    def module(self, name: str) -> int:
        return self.modules.setdefault(name, len(self.modules) + 1) if name else 0


def encode(gadget: Gadget, samples: Iterable[Sample], wall_ns: int) -> bytes:
    numbers = _Numbers()
    parts = []
    for name in gadget.totals.sums:
        pair = _number(1, numbers.text(name)) + _number(2, numbers.text(unit_of(gadget, name)))
        parts.append(_bytes(_SAMPLE_TYPE, pair))
    parts += [_bytes(_SAMPLE, _sample(sample, numbers)) for sample in samples]
    for call, id in numbers.calls.items():
        line = _number(1, id)
        location = _number(1, id) + _number(2, numbers.module(call.module)) + _bytes(4, line)
        title = numbers.text(call.title)
        function = _number(1, id) + _number(2, title) + _number(3, title) + _number(4, numbers.text(call.module))
        parts += [_bytes(_LOCATION, location), _bytes(_FUNCTION, function)]
    for module, id in numbers.modules.items():
        # Field 7, has_functions: names are included, so that tools need not look them up.
        parts.append(_bytes(_MAPPING, _number(1, id) + _number(5, numbers.text(module)) + _number(7, 1)))
    parts += [_number(_TIME, wall_ns), _number(_DEFAULT, numbers.text(gadget.totals.weight))]
    return b"".join([*parts, *(_bytes(_STRING, text.encode("utf-8", "replace")) for text in numbers.texts)])


def _sample(sample: Sample, numbers: _Numbers) -> bytes:
    places = b"".join(_varint(numbers.call(call)) for call in reversed(sample.calls))
    parts = [_bytes(1, places), _bytes(2, b"".join(map(_varint, sample.values)))]
    for key, value in zip(_LABELS, sample.owner, strict=True):
        if value:
            parts.append(_bytes(3, _number(1, numbers.text(key)) + _number(2, numbers.text(value))))
    parts.append(_bytes(3, _number(1, numbers.text("pid")) + _number(3, sample.pid)))
    return b"".join(parts)


def _varint(number: int) -> bytes:
    found = bytearray()
    number &= (1 << 64) - 1
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


# Profiles for https://www.speedscope.app, in its JSON format: one profile per container.


_SCHEMA = "https://www.speedscope.app/file-format-schema.json"
_UNITS = {"nanoseconds": "nanoseconds", "bytes": "bytes", "count": "none"}


class SpeedscopeSink(ProfileSink):
    """Writes one JSON object."""

    def __init__(self, stream: TextIO, gadgets: Sequence[Gadget]) -> None:
        super().__init__(gadgets, "-o speedscope")
        self._stream = stream

    def close(self) -> None:
        frames: dict[PathStep, int] = {}
        by_container: dict[tuple[PathStep, ...], dict[tuple[PathStep, ...], int]] = {}
        for path, weight in self.paths.items():
            by_container.setdefault(path[:2], {})[path[2:]] = weight
        profiles = []
        for container, paths in sorted(by_container.items()):
            numbered = [[frames.setdefault(call, len(frames)) for call in path] for path in paths]
            profiles.append(self._profile(" ".join(call.title for call in container), numbered, list(paths.values())))
        whole = {
            "$schema": _SCHEMA,
            "name": f"kubectl gadget {' '.join(self.gadget.command)}",
            "exporter": f"kubectl-gadget {__version__}",
            "shared": {"frames": [_frame(call) for call in frames]},
            "profiles": profiles,
        }
        json.dump(whole, self._stream)
        self._stream.write("\n")
        self._stream.flush()

    def _profile(self, name: str, stacks: list[list[int]], weights: list[int]) -> dict[str, object]:
        return {
            "type": "sampled",
            "name": name,
            "unit": _UNITS[unit_of(self.gadget, self.gadget.totals.weight)],
            "startValue": 0,
            "endValue": sum(weights),
            "samples": stacks,
            "weights": weights,
        }


def _frame(call: PathStep) -> dict[str, str]:
    return {"name": call.title, "file": call.module} if call.module else {"name": call.title}
