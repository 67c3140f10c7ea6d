"""The story: joins events with the processes that caused them, and selects the events to show.

The input is rows of trace process and of whatever else is observed, of all nodes, in order of time. The output is rows
of one gadget (story.yaml), each with its `StoryEvent`, from which lines and JSON are made. Rows are joined in bulk and
printed later, when a process may have ended already, so `StoryEvent` copies whatever changes. An event that is not
shown must still reach the table of processes, so the selection comes after the join.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kubectl_gadget.filters.cel import Pattern
from kubectl_gadget.gadgets.schema import Field, Gadget
from kubectl_gadget.linux.names import NAMESPACE_KINDS, signal_name
from kubectl_gadget.observe.decoders import connection_events, dns_events, file_events, process_events
from kubectl_gadget.observe.happening import ConnectionEvent, Decoder, FileEvent, Happening, ProcessEvent, event_type
from kubectl_gadget.observe.processes import Process, ProcessTable
from kubectl_gadget.rows.batch import Batch, decode
from kubectl_gadget.rows.containers import Container
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.vectors import utf8
from kubectl_gadget.rows.views import RowWriter, Value, made_gadget, place
from kubectl_gadget.wire.policy_events import Credentials, PolicyEvent

# Which events are shown.

_FROM_BEFORE = ("running", "is open")


@dataclass(frozen=True)
class Choice:
    """The conditions for an event to be shown. Empty means any."""

    process: Pattern | None = None
    """matches the binary's path; an expression of RE2"""
    pod: Pattern | None = None
    event_types: frozenset[str] = frozenset()
    """names as returned by event_type()"""
    policies: frozenset[str] = frozenset()
    """show only events of these policies, and no events of other kinds"""
    running: bool = False
    """include processes and open files from before the run"""

    def wants(self, entry: "StoryEvent") -> bool:
        happening = entry.happening
        type = event_type(happening)
        if not type or (self.event_types and type not in self.event_types):
            return False
        if not self.running and not isinstance(happening, PolicyEvent) and happening.operation in _FROM_BEFORE:
            return False
        if self.policies and (not isinstance(happening, PolicyEvent) or happening.policy not in self.policies):
            return False
        if self.process and not self.process.search(utf8(entry.process.binary or "")):
            return False
        return not (self.pod and not self.pod.search(utf8(entry.container.pod)))


EVERYTHING = Choice()


# What events are made of, and from which gadgets.


PROCESSES, FILES, CONNECTIONS, NAMES = "trace_process", "trace_fileuse", "trace_tcp", "trace_dns"
"""Gadgets whose records can be decoded here; without the first one, there is no story."""
DECODERS: Mapping[str, Decoder] = {
    PROCESSES: process_events,
    FILES: file_events,
    CONNECTIONS: connection_events,
    NAMES: dns_events,
}
_UNKNOWN = 0xFFFFFFFF


@dataclass(frozen=True)
class StoryEvent:
    """One event, with what was known about its process at that time."""

    node: str
    time: int
    """wall time in ns"""
    container: Container
    happening: Happening
    process: Process
    described: ProcessEvent | None
    """the latest record about the process, which has its namespaces"""
    references: int
    parent_references: int
    late: bool = False
    """written after a younger event"""

    @property
    def credentials(self) -> Credentials | None:
        """At the time of the event, when the event has them; else the latest known ones."""
        own = self.happening.credentials if isinstance(self.happening, PolicyEvent | FileEvent) else None
        return own or (self.described.credentials if self.described else None)

    @property
    def namespaces(self) -> tuple[dict[str, int], int | None]:
        """The same for namespaces: inode numbers by kind, and a bit for each that is the node's own, None when
        unknown."""
        happening = self.happening
        if isinstance(happening, PolicyEvent) and happening.namespaces:
            host = happening.host_namespaces
            return dict(zip(NAMESPACE_KINDS, happening.namespaces, strict=True)), None if host == _UNKNOWN else host
        return (self.described.namespaces, self.described.host_namespaces) if self.described else ({}, None)


# The flat columns of a story, for tables, CSV, templates and filters: one row for each event.
#
# They are rows of a gadget whose record exists only here, so that everything that processes rows can process them.
# Their times are wall times already, so the clock's offset is 0.

ENTRY = Field("entry", 0, 0, "entry")
"""Not in the record: holds the StoryEvent of each row."""
_UNKNOWN_BYTES = (1 << 64) - 1

GADGET = made_gadget(Path(__file__).with_suffix(".yaml"))


def row_batch(events: Sequence[StoryEvent], with_columns: bool) -> Batch:
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


def entries_of(batch: Batch) -> list[StoryEvent]:
    found: list[StoryEvent] = batch.raw(ENTRY).tolist()
    return found


def detail(entry: StoryEvent) -> str:
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


def operation(entry: StoryEvent) -> str:
    happening = entry.happening
    return happening.function or happening.hook if isinstance(happening, PolicyEvent) else happening.operation


def _values(entry: StoryEvent) -> dict[str, Value]:
    process, happening = entry.process, entry.happening
    parent = process.parent
    values: dict[str, Value] = {
        "bytes": _UNKNOWN_BYTES,
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


# The joining.


class Story:
    """The transform from rows to a story. `decoders` read batches, by the gadget's name. `needs_columns`: something
    reads the rows' flat columns, and not only `StoryEvent`. `on_event` gets every event, even those that are not shown,
    and must return quickly."""

    gadget: Gadget = GADGET
    """the gadget of the output rows"""

    def __init__(
        self,
        decoders: Mapping[str, Decoder],
        choice: Choice = EVERYTHING,
        *,
        needs_columns: bool = True,
        on_event: "Callable[[StoryEvent], None] | None" = None,
    ) -> None:
        self._decoders = {**DECODERS, **decoders}
        self._choice = choice
        self._needs_columns = needs_columns
        self._on_event = on_event
        self._tables: dict[str, ProcessTable] = {}

    def notes(self) -> Iterator[str]:
        """A note on processes that were forgotten before they ended, because there were too many."""
        if forgotten := sum(table.forgotten for table in self._tables.values()):
            yield f"{forgotten:,} running processes were forgotten: their events have no program"

    def apply(self, rows: Rows) -> Rows:
        """The events of these rows that are shown, in the same order."""
        happened = list(self.events(rows))
        if self._on_event is not None:
            for item in happened:
                self._on_event(item)
        shown = [item for item in happened if self._choice.wants(item)]
        if not shown:
            return Rows([])
        return Rows([row_batch(shown, self._needs_columns)])

    def events(self, rows: Rows) -> Iterator[StoryEvent]:
        """Yields all events of these rows, also those that are not shown."""
        items = rows.collect(self._read)
        # Processes from before the run may be reported after events of theirs from other gadgets, so they are applied
        # first.
        for node, container, time, _, happening in items:
            if isinstance(happening, ProcessEvent) and happening.operation == "running":
                self._table(node).apply(happening, container, time)
        for node, container, time, late, happened in items:
            table = self._table(node)
            for happening in happened if isinstance(happened, Sequence) else (happened,):
                entry = _joined(table, container, time, happening)
                yield replace(entry, late=True) if late else entry

    def _table(self, node: str) -> ProcessTable:
        table = self._tables.get(node)
        if table is None:
            table = self._tables[node] = ProcessTable(node)
        return table

    def _read(self, batch: Batch) -> Sequence[tuple[str, Container, int, bool, Happening | Sequence[Happening]]]:
        happenings = self._decoders[batch.gadget.name](batch)
        late = [False] * len(batch) if batch.late is None else batch.late.tolist()
        return list(zip(batch.nodes(), batch.row_containers(), batch.wall_ns().tolist(), late, happenings, strict=True))


def _joined(table: ProcessTable, container: Container, time: int, happening: Happening) -> StoryEvent:
    described: ProcessEvent | None
    if isinstance(happening, ProcessEvent):
        process = table.apply(happening, container, time)
        described = happening
    else:
        identity = happening.process
        process = table.find(identity) or Process(table.node, identity, container, comm=happening.comm)
        described = process.event
    parent = process.parent
    return StoryEvent(
        table.node,
        time,
        container,
        happening,
        process,
        described,
        process.references,
        parent.references if parent else 0,
    )
