"""The story: joins events with the processes that caused them, and selects the events to show.

The input is rows of trace process and of whatever else is observed, of all nodes, in order of time. The output is rows
of one gadget (row.py), each with its `StoryEvent`, from which lines and JSON are made. Two traps: rows are joined in
bulk and printed later, when a process may have ended already, so `StoryEvent` copies whatever changes; and an event
that is not shown must still reach the table of processes, so the selection comes after the join.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from kubectl_gadget.filters.cel import Pattern
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.linux.names import NAMESPACE_KINDS
from kubectl_gadget.observe.decoders import connection_events, dns_events, file_events, process_events
from kubectl_gadget.observe.happening import Decoder, FileEvent, Happening, ProcessEvent, event_type
from kubectl_gadget.observe.processes import Process, ProcessTable
from kubectl_gadget.observe.row import GADGET, row_batch
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.containers import Container
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.vectors import utf8
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


# The join.


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
