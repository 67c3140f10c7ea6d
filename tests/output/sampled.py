"""Rows of a small profile, for what draws and writes profiles."""

import struct
from typing import TextIO

import numpy as np

from kubectl_gadget.gadgets.schema import About, Column, Field, Gadget, RecordLayout, TableDefaults, TotalFields
from kubectl_gadget.output.sink import Sink
from kubectl_gadget.rows.arrangement import Arrangement
from kubectl_gadget.rows.batch import Batch, decode
from kubectl_gadget.rows.containers import UNKNOWN, Container, Owners
from kubectl_gadget.rows.stacks import CallFrame, number_of
from kubectl_gadget.rows.tables import Block, arrange

_FIELDS = {
    "timestamp": ("gadget_timestamp", 8),
    "interval": ("gadget_duration", 8),
    "cgroup": ("gadget_cgroup", 8),
    "pid": ("__u32", 4),
    "unused": ("__u32", 4),
    "comm": ("gadget_comm", 16),
    "user_stack": ("gadget_stack", 8),
    "kernel_stack": ("gadget_stack", 8),
    "samples": ("__u64", 8),
    "cpu_time": ("gadget_duration", 8),
    "function": ("gadget_innermost", 8),
}


def _fields() -> tuple[Field, ...]:
    found, offset = [], 0
    for name, (type, size) in _FIELDS.items():
        found.append(Field(name, offset, size, type))
        offset += size
    return tuple(found)


PROFILE = Gadget(
    name="profile_cpu",
    command=("profile", "cpu"),
    about=About("processes", ""),
    record=RecordLayout("profile_cpu", sum(size for _, size in _FIELDS.values()), _fields()),
    columns=tuple(Column(name, name.upper(), name, "") for name in ("node", "pod", *_FIELDS) if name != "unused"),
    kind="profile",
    totals=TotalFields(sums=("samples", "cpu_time"), weight="cpu_time"),
    table=TableDefaults(sort="-samples"),
)


def stack(*names: str, module: str = "/bin/work") -> int:
    """Its number; the innermost function is the first."""
    return number_of(tuple(CallFrame(name, module, "") for name in names))


def batch(node: str, pod: str, *rows: tuple[str, int, int, int]) -> Batch:
    """Rows of (comm, user stack, kernel stack, samples); each sample is 10 ms."""
    record = struct.Struct("<IIQQQII16sQQQQQ")
    data = b"".join(
        record.pack(
            PROFILE.record.size, 0, 1, 10**9, 5, 77, 0, comm.encode(), user, kernel, samples, samples * 10**7, 0
        )
        for comm, user, kernel, samples in rows
    )
    made = decode(PROFILE, node, data)
    containers = [UNKNOWN, Container("id", namespace="default", pod=pod, container="main")]
    made.owners = Owners(np.full(len(rows), bool(pod), np.intp), containers)
    return made


def profile(*parts: Batch, max_rows: int | None = None) -> Block:
    """The whole answer."""
    return arrange(parts, Arrangement(max_rows=max_rows))


def written(sink: Sink, rows: Block, stream: TextIO) -> None:
    """As the pipeline does."""
    sink.start()
    sink.write_block(rows)
    sink.close()
    stream.flush()
