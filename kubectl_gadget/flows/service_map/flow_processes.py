"""The processes that flows belong to, and their ancestors, from rows of trace process: for the page of --web.

The trap: the row of a process that was there before the run may come after its first flows, so the process is looked up
again whenever it is shown.
"""

from base64 import b64decode
from collections.abc import Sequence
from itertools import takewhile

from kubectl_gadget.observe.decoders import process_events
from kubectl_gadget.observe.happening import ProcessEvent
from kubectl_gadget.observe.processes import Process, ProcessTable
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.container_lookup import Container
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.wire.policy_events.exec_id import ExecId

GADGET = "trace_process"

_Row = tuple[str, ProcessEvent, Container, int]


class Processes:
    """The processes of all nodes. `take` rows, `find` processes by the ID in flows."""

    def __init__(self) -> None:
        self._tables: dict[str, ProcessTable] = {}

    def take(self, rows: Rows) -> None:
        """Takes rows of trace process; others are skipped."""
        for row in rows.collect(_read):
            if row is not None:
                self.apply(*row)

    def apply(self, node: str, event: ProcessEvent, container: Container, time: int) -> None:
        """Takes one row."""
        if node not in self._tables:
            self._tables[node] = ProcessTable(node)
        self._tables[node].apply(event, container, time)

    def find(self, exec_id: str) -> Process | None:
        """The process; None: unknown."""
        node, started, pid = b64decode(exec_id).decode().rsplit(":", 2)
        table = self._tables.get(node)
        return table.find(ExecId(int(started), int(pid))) if table else None


def within_container(process: Process) -> list[Process]:
    """The process and its ancestors in the same container, the outermost first."""
    found = takewhile(lambda other: other.container == process.container, process.ancestors())
    return [process, *found][::-1]


def _read(batch: Batch) -> Sequence[_Row | None]:
    if batch.gadget.name != GADGET:
        return [None] * len(batch)
    columns = batch.nodes(), process_events(batch), batch.row_containers(), batch.wall_ns().tolist()
    return list(zip(*columns, strict=True))
