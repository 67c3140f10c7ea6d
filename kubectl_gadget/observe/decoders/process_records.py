"""Decodes records of trace process and trace fileuse.

The trap: batches are read by column, so each column that is needed is read once for all rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kubectl_gadget.linux.processes import NAMESPACE_KINDS
from kubectl_gadget.observe.happening import FileEvent, ProcessEvent
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.columns.members import member_values as values
from kubectl_gadget.rows.exec_id_field import read_exec_id
from kubectl_gadget.wire.policy_events.event import Credentials
from kubectl_gadget.wire.policy_events.exec_id import ExecId

_CREDENTIALS = (
    *("uid", "gid", "euid", "egid", "suid", "sgid", "fsuid", "fsgid", "securebits"),
    *("cap_permitted", "cap_effective", "cap_inheritable"),
)
_UNKNOWN = 0xFFFFFFFF


def process_events(batch: Batch) -> Sequence[ProcessEvent]:
    """The events in records of trace process, one for each row."""
    namespaces = zip(*(numbers(batch, f"ns_{kind}") for kind in NAMESPACE_KINDS), strict=True)
    columns: dict[str, Sequence[Any]] = {
        "process": _processes(batch, "a process without an identity"),
        "parent": [read_exec_id(raw) for raw in batch.raw("parent_exec_id").tolist()],
        "started": batch.to_wall(batch.raw("started")).tolist(),
        "credentials": _credentials(batch),
        "namespaces": [dict(zip(NAMESPACE_KINDS, row, strict=True)) for row in namespaces],
        "auid": [None if number == _UNKNOWN else number for number in numbers(batch, "auid")],
        "host_namespaces": [None if number == _UNKNOWN else number for number in numbers(batch, "ns_host")],
        "args": [None if args is None else tuple(args) for args in values(batch, "args")],
    }
    for name in ("tid", "container_pid", "inode", "links", "gained", "code", "signal"):
        columns[name] = numbers(batch, name)
    for name in ("operation", "comm", "exe", "path", "interpreted", "args_cut", "cwd"):
        columns[name] = values(batch, name)
    return [ProcessEvent(**row) for row in _rows(columns)]


def file_events(batch: Batch) -> Sequence[FileEvent]:
    """The events in records of trace fileuse, one for each row."""
    columns: dict[str, Sequence[Any]] = {
        "process": _processes(batch, "a file that no process uses"),
        "bytes": values(batch, "bytes"),
        "credentials": _credentials(batch),
    }
    for name in ("tid", "file_id", "inode", "device", "flags"):
        columns[name] = numbers(batch, name)
    for name in ("operation", "path", "protection", "comm"):
        columns[name] = values(batch, name)
    return [FileEvent(**row) for row in _rows(columns)]


def numbers(batch: Batch, field: str) -> list[Any]:
    """A field as in the record, for each row."""
    read: list[Any] = batch.raw(field).tolist()
    return read


def _rows(columns: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    return (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))


def _processes(batch: Batch, missing: str) -> list[ExecId]:
    """The process of each row. Raises ValueError with `missing` as its text when a row has none."""
    found = []
    for raw in batch.raw("exec_id").tolist():
        identity = read_exec_id(raw)
        if identity is None:
            raise ValueError(missing)
        found.append(identity)
    return found


def _credentials(batch: Batch) -> list[Credentials]:
    return [Credentials(*row) for row in zip(*(numbers(batch, name) for name in _CREDENTIALS), strict=True)]
