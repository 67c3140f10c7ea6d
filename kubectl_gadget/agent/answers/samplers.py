"""Rows that the agent itself reads from the node, where no BPF program can: mounts, cgroups' files.

A gadget's YAML names such a sampler under `sampler:`, and RUN gives the offset of each field in the record, so that its
rows become records like those of BPF programs. A sampler yields rows as dicts by field; missing numbers are 0, and
missing texts are absent. The trap: a text's offset has 16 bits and its length 15, so longer texts are truncated and
marked as truncated.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from itertools import islice

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
"""By name: the module, which is imported only then, and the class."""
_CUT = 0x8000
_MOST_BYTES = 0x7FFF
_ROWS = 1024
"""Rows in one piece."""
_HEADER = struct.Struct("<II")
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
        """Frees what it holds; most hold nothing."""


def make(name: str, containers: Containers) -> Sampler:
    """Creates a sampler. Raises AgentError."""
    if name not in _CLASSES:
        raise AgentError(f"this agent has no sampler {name!r}", "update the agents")
    module, made = _CLASSES[name]
    sampler: Sampler = getattr(import_module(f"kubectl_gadget.agent.answers.{module}"), made)(containers)
    return sampler


class RowPacker:
    """Builds records. Raises FrameError when `layout` has fields outside of the record."""

    def __init__(self, layout: Layout) -> None:
        ends = [offset + size for offset, size in layout.fields.values() if offset >= 0 and size >= 0]
        if len(ends) < len(layout.fields) or not max(ends, default=0) <= layout.size <= _MOST_BYTES:
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
        return _HEADER.pack(len(record), 0) + record + bytes(-len(record) % 8)


def sampled(spec: GadgetSpec, containers: Containers) -> "Sampled | None":
    """Returns the sampler that `spec` asks for, or None. Raises AgentError and FrameError."""
    if not spec.sampler:
        return None
    if spec.layout is None:
        raise FrameError(f"RUN: {spec.name} has a `sampler` without a `layout`")
    return Sampled(spec.sampler, spec.layout, containers)


class Sampled:
    """Turns a sampler's rows into records, for a gadget's answer."""

    def __init__(self, sampler: str, layout: Layout, containers: Containers) -> None:
        self._packer = RowPacker(layout)
        self._sampler = make(sampler, containers)

    def records(self, head: bytes) -> Iterator[bytes]:
        """Yields all rows, many in each piece."""
        rows = self._sampler.rows()
        while piece := b"".join(self._packer.pack(row, head) for row in islice(rows, _ROWS)):
            yield piece

    def pass_warnings(self, warn: Callable[[str], None]) -> None:
        """Passes on warnings about what failed since the last call."""
        while self._sampler.warnings:
            warn(self._sampler.warnings.pop(0))

    def close(self) -> None:
        """Frees what the sampler holds."""
        self._sampler.close()
