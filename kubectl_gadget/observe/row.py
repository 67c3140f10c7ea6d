"""The flat columns of a story, for tables, CSV, templates and filters: one row for each event.

They are rows of a gadget whose record exists only here, so that everything that processes rows can process them. The
trap: their times are wall times already, so the clock's offset is 0.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kubectl_gadget.gadgets.schema import Field
from kubectl_gadget.linux.names import signal_name
from kubectl_gadget.observe.happening import ConnectionEvent, FileEvent, ProcessEvent, event_type
from kubectl_gadget.rows.batch import Batch, decode
from kubectl_gadget.rows.views import RowWriter, Value, made_gadget, place
from kubectl_gadget.wire.policy_events import PolicyEvent

if TYPE_CHECKING:
    from kubectl_gadget.observe.story import StoryEvent

ENTRY = Field("entry", 0, 0, "entry")
"""Not in the record: holds the StoryEvent of each row."""
_UNKNOWN = (1 << 64) - 1

GADGET = made_gadget(Path(__file__).with_suffix(".yaml"))


def row_batch(events: "Sequence[StoryEvent]", with_columns: bool) -> Batch:
    """One batch with these events; its `raw(ENTRY)` returns them. Without columns, rows have their time only."""
    writer = RowWriter(GADGET.record)
    for item in events:
        writer.add(b"", item.time, _values(item) if with_columns else {})
    batch = decode(GADGET, "", writer.take())
    place(batch, (item.node for item in events), (item.container for item in events))
    objects = np.empty(len(events), object)
    objects[:] = events
    batch.give(ENTRY.name, objects)
    if any(item.late for item in events):
        batch.late = np.array([item.late for item in events], np.bool_)
    return batch


def entries_of(batch: Batch) -> "list[StoryEvent]":
    found: list[StoryEvent] = batch.raw(ENTRY).tolist()
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
