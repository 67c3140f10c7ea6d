"""Rows that the agent itself reads from the node, because no BPF program can: mounts, files of cgroups.

A gadget's YAML names such a sampler under `sampler:`, and RUN gives the offset of each field in the record, so that its
rows become records like those of BPF programs. A sampler yields rows as dicts by field; missing numbers are 0, and
missing texts are absent. The trap: a text's offset has 16 bits and its length 15, so longer texts are truncated and
marked as truncated.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from itertools import islice

from kubectl_gadget.agent.bpf.ring import framed
from kubectl_gadget.agent.containers.tracking import Containers
from kubectl_gadget.agent.host import cgroups
from kubectl_gadget.errors import AgentError, FrameError
from kubectl_gadget.wire.client_messages import GadgetSpec, Layout

Row = Mapping[str, int | bytes]
"""Values by field: numbers, or bytes for texts and arrays."""

UNKNOWN = 0xFFFF_FFFF_FFFF_FFFF
"""For a sum, a duration or a number of bytes: not available here."""

_CLASSES = {
    "mounts": ("mounts", "Mounts"),
    "bpf_programs": ("bpf_programs", "BpfPrograms"),
    "cgroups": ("cgroup_usage", "CgroupUsage"),
}
"""By name: the module, which is imported at first use, and the class."""
_CUT = 0x8000
_MOST_BYTES = 0x7FFF
_ROWS = 1024
"""Rows in one piece."""
_TEXT = struct.Struct("<HH")


class Sampler:
    """Reads the node during a session. Raises AgentError when it cannot work here."""

    def __init__(self, containers: Containers) -> None:
        self.warnings: list[str] = []
        self._containers = containers
        self._root = cgroups.find_root()

    def rows(self) -> Iterator[Row]:
        """Yields the present state, or, for totals, the changes since the last call."""
        raise NotImplementedError

    def close(self) -> None:
        """Frees what the sampler holds; most hold nothing."""


class RowPacker:
    """Packs rows into records. Raises FrameError when `layout` has fields outside of the record."""

    def __init__(self, layout: Layout) -> None:
        stops = [offset + size for offset, size in layout.fields.values() if offset >= 0 and size >= 0]
        if len(stops) < len(layout.fields) or not max(stops, default=0) <= layout.size <= _MOST_BYTES:
            raise FrameError(f"RUN: `layout` has fields outside of its {layout.size} bytes")
        if unknown := set(layout.texts) - layout.fields.keys():
            raise FrameError(f"RUN: `layout` names texts that are not fields: {', '.join(sorted(unknown))}")
        self.size = layout.size
        self._fields = layout.fields
        self._texts = layout.texts

    def pack(self, row: Row, head: bytes = b"") -> bytes:
        """Returns one record, starting with `head`, as ring buffer bytes."""
        record = bytearray(self.size)
        record[: len(head)] = head
        for name in self._texts:
            _TEXT.pack_into(record, self._fields[name][0], 0, 1)
        for name, value in row.items():
            offset, size = self._fields[name]
            if name in self._texts:
                assert isinstance(value, bytes)
                length = min(len(value), _MOST_BYTES, 0xFFFF - len(record))
                _TEXT.pack_into(record, offset, len(record), length | (_CUT if length < len(value) else 0))
                record += value[:length]
            elif isinstance(value, bytes):
                record[offset : offset + size] = value[:size].ljust(size, b"\0")
            else:
                record[offset : offset + size] = value.to_bytes(size, "little")
        return framed(record)


class Sampled:
    """The rows of the sampler that `spec` names, as records, for a gadget's answer; empty when it names no sampler.
    Raises AgentError and FrameError."""

    def __init__(self, spec: GadgetSpec, containers: Containers, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._sampler: Sampler | None = None
        if not spec.sampler:
            return
        if spec.layout is None:
            raise FrameError(f"RUN: {spec.name} has a `sampler` without a `layout`")
        if spec.sampler not in _CLASSES:
            raise AgentError(
                f"this agent has no sampler {spec.sampler!r}", "kubectl gadget deploy, which updates the agents"
            )
        self._packer = RowPacker(spec.layout)
        module, name = _CLASSES[spec.sampler]
        self._sampler = getattr(import_module(f"kubectl_gadget.agent.answers.{module}"), name)(containers)

    def __bool__(self) -> bool:
        """Whether there is a sampler."""
        return self._sampler is not None

    def records(self, head: bytes) -> Iterator[bytes]:
        """Yields all rows, many in each piece; each record starts with `head`. Then warns about what failed."""
        if self._sampler is None:
            return
        rows = self._sampler.rows()
        while piece := b"".join(self._packer.pack(row, head) for row in islice(rows, _ROWS)):
            yield piece
        while self._sampler.warnings:
            self._warn(self._sampler.warnings.pop(0))

    def close(self) -> None:
        """Frees what the sampler holds."""
        if self._sampler:
            self._sampler.close()
