"""Profiles for `go tool pprof` and similar tools: profile.proto, compressed with gzip.

The few parts of the protocol buffers encoding that are needed (varints and length-delimited fields) are implemented
here; the format has not changed in ten years, and the library would need generated code. The trap: the output is
binary, so it needs the binary stream below the text stream, and must not go to a terminal.
"""

import gzip
import time
from collections.abc import Iterable, Sequence
from typing import BinaryIO, TextIO

from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.output.profiles.folded import ProfileSink
from kubectl_gadget.output.terminal import Terminal
from kubectl_gadget.rows.tables.call_paths import PathStep, Sample, unit_of

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
