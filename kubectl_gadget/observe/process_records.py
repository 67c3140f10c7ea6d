"""From records of trace process and trace fileuse to happenings.

The trap: a batch is read column by column, so each column that is used is read once for all rows.
"""

from collections.abc import Sequence
from typing import Any

from kubectl_gadget.events.batch import Batch
from kubectl_gadget.events.columns.members import filter_members
from kubectl_gadget.events.exec_id import read_exec_id
from kubectl_gadget.events.linux.process import NAMESPACE_KINDS
from kubectl_gadget.observe.happening import FileEvent, ProcessEvent
from kubectl_gadget.policy_events.event import Credentials

_CREDENTIALS = (
    *("uid", "gid", "euid", "egid", "suid", "sgid", "fsuid", "fsgid", "securebits"),
    *("cap_permitted", "cap_effective", "cap_inheritable"),
)
_NOBODY = 0xFFFFFFFF
_UNKNOWN = 0xFFFFFFFF


def process_events(batch: Batch) -> Sequence[ProcessEvent]:
    """One per row."""
    namespaces = zip(*(numbers(batch, f"ns_{kind}") for kind in NAMESPACE_KINDS), strict=True)
    rows = zip(
        values(batch, "operation"),
        batch.raw("exec_id").tolist(),
        batch.raw("parent_exec_id").tolist(),
        *(numbers(batch, name) for name in ("tid", "container_pid")),
        batch.to_wall(batch.raw("started")).tolist(),
        *(numbers(batch, name) for name in ("auid", "ns_host", "inode", "links")),
        *(numbers(batch, name) for name in ("gained", "code", "signal")),
        *(values(batch, name) for name in ("comm", "exe", "path", "interpreted", "args", "args_cut", "cwd")),
        zip(*(numbers(batch, name) for name in _CREDENTIALS), strict=True),
        namespaces,
        strict=True,
    )
    return [_event(*row) for row in rows]


def values(batch: Batch, member: str) -> list[Any]:
    """A member of JSON, for each row."""
    found = filter_members(batch.gadget)[member]
    return batch.vector(found.name, found.read).values()


def numbers(batch: Batch, field: str) -> list[Any]:
    """A field as the record has it, for each row."""
    read: list[Any] = batch.raw(field).tolist()
    return read


def _event(
    operation: Any,
    process: bytes,
    parent: bytes,
    tid: int,
    container_pid: int,
    started: int,
    auid: int,
    host: int,
    inode: int,
    links: int,
    gained: int,
    code: int,
    signal: int,
    comm: str,
    exe: str | None,
    path: str | None,
    interpreted: bool,
    args: list[str] | None,
    args_cut: bool,
    cwd: str | None,
    credentials: tuple[int, ...],
    namespaces: tuple[int, ...],
) -> ProcessEvent:
    identity = read_exec_id(process)
    if identity is None:
        raise ValueError("a process without an identity")
    return ProcessEvent(
        operation=operation,
        process=identity,
        parent=read_exec_id(parent),
        tid=tid,
        container_pid=container_pid,
        started=started,
        credentials=Credentials(*credentials),
        auid=None if auid == _NOBODY else auid,
        namespaces=dict(zip(NAMESPACE_KINDS, namespaces, strict=True)),
        host_namespaces=None if host == _UNKNOWN else host,
        comm=comm,
        exe=exe,
        path=path,
        interpreted=interpreted,
        args=None if args is None else tuple(args),
        args_cut=args_cut,
        cwd=cwd,
        inode=inode,
        links=links,
        gained=gained,
        code=code,
        signal=signal,
    )


def file_events(batch: Batch) -> Sequence[FileEvent]:
    """From records of trace fileuse, one per row."""
    rows = zip(
        values(batch, "operation"),
        batch.raw("exec_id").tolist(),
        values(batch, "path"),
        values(batch, "bytes"),
        values(batch, "protection"),
        values(batch, "comm"),
        *(numbers(batch, name) for name in ("tid", "file_id", "inode", "device", "flags")),
        zip(*(numbers(batch, name) for name in _CREDENTIALS), strict=True),
        strict=True,
    )
    return [_use(*row) for row in rows]


def _use(
    operation: str,
    process: bytes,
    path: str | None,
    amount: int | None,
    protection: str,
    comm: str,
    tid: int,
    file_id: int,
    inode: int,
    device: int,
    flags: int,
    credentials: tuple[int, ...],
) -> FileEvent:
    identity = read_exec_id(process)
    if identity is None:
        raise ValueError("a file that no process uses")
    return FileEvent(
        operation,
        identity,
        tid,
        path,
        file_id,
        inode,
        device,
        flags,
        amount,
        protection,
        Credentials(*credentials),
        comm,
    )
