"""The flat columns of a story, for tables, CSV, templates and filters: one row for each event.

They are rows of a gadget whose record exists only here, so that everything that processes rows can process them. The
trap: their times are wall times already, so the clock's offset is 0.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from kubectl_gadget.events.batch import Batch, decode
from kubectl_gadget.events.schema import About, Column, Field, Gadget, Show
from kubectl_gadget.observe.choice import event_type
from kubectl_gadget.observe.happening import ConnectionEvent, FileEvent, ProcessEvent
from kubectl_gadget.policy_events.event import PolicyEvent
from kubectl_gadget.views.row_writer import RowWriter, Value, made_layout, place

if TYPE_CHECKING:
    from kubectl_gadget.observe.story import StoryEvent

TOLD = Field("entry", 0, 0, "entry")
"""Not in the record: holds the StoryEvent of each row."""
_UNKNOWN = (1 << 64) - 1

_FIELDS = (
    ("timestamp", "gadget_timestamp", 8),
    ("cgroup", "gadget_cgroup", 8),
    ("bytes", "gadget_bytes", 8),
    ("pid", "__u32", 4),
    ("tid", "__u32", 4),
    ("ppid", "__u32", 4),
    ("uid", "gadget_uid", 4),
    ("status", "gadget_exit_code", 4),
    ("signal", "gadget_signal", 4),
    ("blocked", "bool", 1),
    *((name, "gadget_string", 4) for name in ("event", "operation", "binary", "arguments", "detail", "file", "cwd")),
    *((name, "gadget_string", 4) for name in ("exec_id", "parent_exec_id", "parent", "file_id", "flow_id", "flags")),
    *((name, "gadget_string", 4) for name in ("policy", "action", "would_be", "message", "tags")),
)

_NUMBERS = frozenset({"pid", "tid", "ppid", "uid", "status", "bytes"})


def _column(
    name: str, description: str, show: Show = "default", width: int = 10, title: str = "", stretch: bool = False
) -> Column:
    align: Literal["left", "right"] = "right" if name in _NUMBERS else "left"
    return Column(name, title or name.upper(), name, description, show, width, align, stretch)


_COLUMNS = (
    _column("timestamp", "when it happened", "wide", 15),
    _column("node", "the node it happened on", width=20),
    _column("namespace", "the pod's namespace", width=12),
    _column("pod", "the pod's name; empty for a process of the host", width=24),
    _column("container", "the container's name in its pod", width=14),
    _column("pid", "the process's number on the node", width=7),
    _column(
        "operation",
        "what was done: exec, exit, open, write, …, or the function of a policy's hook",
        width=8,
        title="WHAT",
    ),
    _column("binary", "the program", width=16),
    _column("arguments", "the program's arguments, without its name", width=30, stretch=True),
    _column(
        "detail",
        "the file, the arguments of a policy's hook, how it ended",
        width=30,
        stretch=True,
    ),
    _column("blocked", "whether it was prevented", "wide", 7),
    _column("policy", "the policy that asked for it", "wide", 16),
    _column("action", "what the policy did about it", "wide", 8),
    _column("would_be", "what the policy asks for, if it is not carried out", "json", 16, title="WOULD BE"),
    _column("event", "its type in JSON of events: process_exec, process_kprobe, …", "json", 14),
    _column("file", "the file", "json", 30),
    _column("file_id", "identifier of an open file, from open to the last close", "json", 20, title="FILE ID"),
    _column("flow_id", "of a connection, as in kubectl gadget flows", "json", 30, title="FLOW ID"),
    _column("bytes", "bytes that were read or written", "json", 8),
    _column("status", "of exit, what the program returned; -1 for all others", "json", 6),
    _column("signal", "of exit, the signal that ended it", "json", 7),
    _column("message", "the policy's message", "json", 30),
    _column("tags", "the policy's tags", "json", 16),
    _column("tid", "the thread's number on the node", "json", 7),
    _column("uid", "the user's number on the node", "wide", 6),
    _column("ppid", "the number of the process that forked it", "wide", 7),
    _column("parent", "binary and arguments of the process that forked it", "wide", 20),
    _column("cwd", "the working directory when the program began", "json", 12),
    _column("flags", "how the process became known", "json", 12),
    _column("exec_id", "identifier of this execution of a program", "json", 36, title="EXEC ID"),
    _column("parent_exec_id", "that of the process that forked it", "json", 36, title="PARENT EXEC ID"),
    _column("image", "the container's image", "json", 30),
    _column("container_id", "the container's identifier in its runtime", "json", 12, title="CONTAINER ID"),
    _column("pod_uid", "the pod's uid", "json", 36, title="POD UID"),
    _column("runtime", "what runs the container", "json", 10),
)

GADGET = Gadget(
    name="observe",
    command=("observe",),
    about=About("processes", "The life of workloads: their processes, and what each of them did"),
    record=made_layout("observe", _FIELDS),
    columns=_COLUMNS,
)


def row_batch(entry: "Sequence[StoryEvent]", with_columns: bool) -> Batch:
    """One batch with these events; its `raw(TOLD)` returns them. Without columns, rows have their time only."""
    writer = RowWriter(GADGET.record)
    for item in entry:
        writer.add(b"", item.time, _values(item) if with_columns else {})
    batch = decode(GADGET, "", writer.take())
    place(batch, (item.node for item in entry), (item.container for item in entry))
    objects = np.empty(len(entry), object)
    objects[:] = entry
    batch.give(TOLD.name, objects)
    if any(item.late for item in entry):
        batch.late = np.array([item.late for item in entry], np.bool_)
    return batch


def entries_of(batch: Batch) -> "list[StoryEvent]":
    found: list[StoryEvent] = batch.raw(TOLD).tolist()
    return found


def detail(entry: "StoryEvent") -> str:
    """The object of the event in a few words, for a column and for the tree."""
    happening = entry.happening
    if isinstance(happening, ProcessEvent):
        return ending(happening) if happening.operation == "exit" else ""
    if isinstance(happening, FileEvent):
        amount = "" if happening.bytes is None else f" {happening.bytes} bytes"
        return f"{happening.path or '-'}{amount}"
    if isinstance(happening, ConnectionEvent):
        return happening.what
    parts = [argument.text for argument in happening.args]
    if happening.path:
        parts.insert(0, happening.path)
    return " ".join(parts)


def ending(event: ProcessEvent) -> str:
    """The exit status `0`, or the signal `SIGKILL`."""
    from kubectl_gadget.events.linux.process_constants import signal_name

    return signal_name(event.signal) if event.signal else str(event.code)


def operation(entry: "StoryEvent") -> str:
    happening = entry.happening
    return happening.function or happening.hook if isinstance(happening, PolicyEvent) else happening.operation


def _values(entry: "StoryEvent") -> dict[str, Value]:
    process, happening = entry.process, entry.happening
    parent = process.parent
    values: dict[str, Value] = {
        "bytes": _UNKNOWN,
        "pid": process.id.pid,
        "tid": happening.tid,
        "status": -1,
        "event": event_type(happening),
        "operation": operation(entry),
        "binary": process.binary,
        "arguments": process.arguments,
        "detail": detail(entry) or None,
        "cwd": process.cwd or None,
        "exec_id": process.id.text(entry.node),
        "parent_exec_id": process.parent_id and process.parent_id.text(entry.node),
        "ppid": process.parent_id and process.parent_id.pid,
        "parent": None if parent is None else parent.command,
        "flags": " ".join(process.flags),
    }
    if credentials := entry.credentials:
        values["uid"] = credentials.uid
    if isinstance(happening, ProcessEvent) and happening.operation == "exit":
        values |= {"status": happening.code if not happening.signal else -1, "signal": happening.signal}
    elif isinstance(happening, FileEvent):
        values |= {"file": happening.path, "file_id": f"{happening.file_id:x}"}
        if happening.bytes is not None:
            values["bytes"] = happening.bytes
    elif isinstance(happening, ConnectionEvent):
        values["flow_id"] = happening.flow_id
    elif isinstance(happening, PolicyEvent):
        values |= {
            "blocked": happening.blocked,
            "policy": happening.policy or None,
            "action": happening.action,
            "would_be": happening.would_be or None,
            "message": happening.message or None,
            "tags": ",".join(happening.tags) or None,
            "file": next((argument.text for argument in happening.args if argument.kind in ("file", "path")), None),
            "file_id": happening.file_id or None,
        }
    return values
