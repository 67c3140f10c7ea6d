"""The processes of one node, by the identity of their programs.

Records arrive in order of time. The trap: the table has to forget, or it would contain every process that ever existed.
Processes that have ended are kept for a while, since events of other programs may be some milliseconds late; after
that, they live as long as a known child, which holds references to its ancestors.
"""

from collections import OrderedDict

from kubectl_gadget.observe.happening import ProcessEvent
from kubectl_gadget.observe.process import Process, flags_of, program_of
from kubectl_gadget.rows.container_lookup import Container
from kubectl_gadget.wire.policy_events.exec_id import ExecId

MOST_PROCESSES = 65_536
KEEP_NS = 30_000_000_000
"""How long processes can be found after their end, by the node's clock."""
MOST_ANCESTORS = 128


class ProcessTable:
    """`apply` each record of trace process, and `find` processes for other records. Times are wall time in ns."""

    def __init__(self, node: str, most: int = MOST_PROCESSES) -> None:
        self.node = node
        self.forgotten = 0
        """processes that were removed before they ended, because there were too many"""
        self._most = most
        self._known: OrderedDict[ExecId, Process] = OrderedDict()
        self._ended: OrderedDict[ExecId, int] = OrderedDict()
        self._orphans: dict[ExecId, list[Process]] = {}
        """by parent: processes from before the run whose parent has not been reported yet"""

    def __len__(self) -> int:
        return len(self._known)

    def find(self, id: ExecId) -> Process | None:
        """The program that runs, or ran until recently, under this identity; None: unknown."""
        return self._known.get(id)

    def apply(self, event: ProcessEvent, container: Container, time: int) -> Process:
        """Takes one record and returns its process."""
        process = self._known.get(event.process)
        if event.operation == "exit":
            process = process or self._unknown(event, container)
            process.event = event
            self._end(process, time)
        elif process is None:
            process = self._begin(event, container, time)
        self._expire(time)
        return process

    def _begin(self, event: ProcessEvent, container: Container, time: int) -> Process:
        before = None
        if event.operation == "exec":
            before = self._known.get(ExecId(event.process.started - 1, event.process.pid))
        process = self._unknown(event, container)
        process.start = time if event.operation == "exec" else event.started
        if before is not None:
            process.parent, process.parent_id = before.parent, before.parent_id
        if event.operation == "fork" and process.parent is not None:
            process.binary, process.exe = process.parent.binary, process.parent.exe
            process.args, process.args_cut = process.parent.args, process.parent.args_cut
        if event.operation != "fork" or process.binary is None:
            process.exe = event.exe
            process.binary, process.args = program_of(event)
            process.args_cut = event.args_cut
        process.cwd = event.cwd or ""
        process.flags = flags_of(event, event.operation == "fork" or bool(before and "clone" in before.flags))
        if before is not None:
            self._end(before, time)
        if process.parent is not None:
            self._link(process, process.parent)
        process.is_first = event.container_pid == 1 and container.kind == "container"
        self._known[process.id] = process
        for child in self._orphans.pop(process.id, ()):
            self._link(child, process)
        if event.operation == "running" and process.parent is None and event.parent is not None:
            self._orphans.setdefault(event.parent, []).append(process)
        self._make_room()
        return process

    def _unknown(self, event: ProcessEvent, container: Container) -> Process:
        """A process with only what every record contains."""
        parent = event.parent and self._known.get(event.parent)
        return Process(self.node, event.process, container, parent, event.parent, event=event)

    def _end(self, process: Process, time: int) -> None:
        if process.has_ended:
            return
        process.has_ended = True
        if process.parent is not None:
            process.parent.children -= 1
        if process.id in self._known:
            self._ended[process.id] = time

    def _expire(self, now: int) -> None:
        while self._ended:
            id, ended = next(iter(self._ended.items()))
            if now - ended <= KEEP_NS:
                return
            del self._ended[id]
            self._forget(id)

    def _forget(self, id: ExecId) -> None:
        self._known.pop(id, None)

    def _make_room(self) -> None:
        while len(self._known) > self._most:
            if self._ended:
                id, _ = self._ended.popitem(last=False)
            else:
                id = next(iter(self._known))
                self.forgotten += 1
            self._forget(id)

    @staticmethod
    def _link(process: Process, parent: Process) -> None:
        """Sets the parent. Drops the oldest ancestor of a long chain, in which each generation forks the next one and
        ends."""
        process.parent = parent
        parent.children += not process.has_ended
        process.generation = parent.generation + 1
        if process.generation % MOST_ANCESTORS:
            return
        for number, ancestor in enumerate(process.ancestors()):
            if number == MOST_ANCESTORS:
                ancestor.parent = None
