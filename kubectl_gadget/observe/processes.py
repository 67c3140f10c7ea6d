"""Processes of a story: the program that each one runs, and a table of the processes of one node.

A `Process` lasts from an exec to the next one or to the end. Note: a process that was forked and has not executed
anything yet runs its parent's program, but is a process of its own. The table has to forget, or it would
contain every process that ever existed. It keeps processes for a while after their end, since events of other programs
may be some milliseconds late; after that, they live as long as a known child, which holds references to its ancestors.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from posixpath import basename

from kubectl_gadget.observe.happening import ProcessEvent
from kubectl_gadget.rows.containers import Container
from kubectl_gadget.wire.policy_events import ExecId

# One program of a process.


_NO_NAME = ("/dev/fd/", "/proc/")
"""A program that was executed through a descriptor has such a path, which carries no information."""


@dataclass(eq=False)
class Process:
    """A process. `binary` is None when its exec was not seen."""

    node: str
    id: ExecId
    container: Container
    parent: "Process | None" = None
    """the program that forked it, at that time; None: unknown, or not observed"""
    parent_id: ExecId | None = None
    binary: str | None = None
    args: tuple[str, ...] = ()
    """without the first one, the program's name, when that is its path"""
    args_cut: bool = False
    """there were more arguments"""
    cwd: str = ""
    flags: tuple[str, ...] = ()
    start: int = 0
    """of the program, wall time in ns"""
    event: ProcessEvent | None = None
    """the latest record about it, which has its credentials"""
    exe: str | None = None
    comm: str = ""
    """the thread's name, for a process without records of its own"""
    is_first: bool = False
    """it is the first process of its container"""
    generation: int = 0
    children: int = 0
    """number of children that have not ended"""
    has_ended: bool = False

    def ancestors(self) -> Iterator["Process"]:
        """The parent, its parent, …"""
        process = self.parent
        while process is not None:
            yield process
            process = process.parent

    @property
    def in_init_tree(self) -> bool:
        """Return True if it descends from the first process of its container; processes of kubectl exec do not."""
        return self.is_first or any(process.is_first for process in self.ancestors())

    @property
    def references(self) -> int:
        """Return the number of running processes that need it: itself and its children."""
        return self.children + (not self.has_ended)

    @property
    def arguments(self) -> str:
        """One text, as in JSON. It is ambiguous when an argument contains quotes or characters that would need
        escaping."""
        return join_arguments(self.args) + ("…" if self.args_cut else "")

    @property
    def command(self) -> str:
        """Binary and arguments, for people."""
        return " ".join(part for part in (self.name, self.arguments) if part)

    @property
    def name(self) -> str:
        """The binary, for people; the name of the thread in parentheses when the binary is unknown."""
        comm = self.event.comm if self.event else self.comm
        return self.binary or (f"({comm})" if comm else "-")


def program_of(event: ProcessEvent) -> tuple[str | None, tuple[str, ...]]:
    """The program's path, and its arguments.

    The path is the one by which the program was called, if that certainly names a file, since one file may be several
    programs (busybox); for a script, it is the interpreter's path. Otherwise it is the file that the kernel executes;
    the arguments then begin with the program's own name if that adds information: `/bin/busybox sh -c …`.
    """
    args, called = event.args or (), _called(event)
    if called is None and args and basename(args[0]) != basename(event.exe or ""):
        return event.exe, args
    return called or event.exe, args[1:]


def _called(event: ProcessEvent) -> str | None:
    path = event.path
    if event.operation != "exec" or not path:
        return None
    if event.interpreted:
        # the kernel puts the interpreter's path before the others
        path = event.args[0] if event.args else ""
    if path.startswith("/"):
        return None if path.startswith(_NO_NAME) else path
    if not path or ".." in path.split("/") or not event.cwd:
        return None
    return f"{event.cwd.rstrip('/')}/{path.removeprefix('./')}"


def join_arguments(args: tuple[str, ...]) -> str:
    """One text. Arguments that are empty or contain spaces are quoted."""
    return " ".join(f'"{arg}"' if not arg or any(map(str.isspace, arg)) else arg for arg in args)


def flags_of(event: ProcessEvent, forked: bool) -> tuple[str, ...]:
    """Return how the process became known, and what is missing, in the words of the JSON schema.

    `forked`: this is the first program since the fork."""
    found = {"exec": ["execve"], "running": ["procFS"], "fork": []}.get(event.operation, [])
    if event.args is None and event.operation in ("exec", "running"):
        found.append("errorArgs")
    if event.args_cut:
        found.append("truncArgs")
    if event.cwd == "/":
        found.append("rootcwd")
    elif event.cwd is None:
        found.append("errorCWD")
    if forked:
        found.append("clone")
    return tuple(found)


# The processes of one node, by the identity of their programs. Records arrive in order of time.


MOST_PROCESSES = 65_536
KEEP_NS = 30_000_000_000
"""Nanoseconds after its end in which a process can be found, by the node's clock."""
MOST_ANCESTORS = 128
MOST_SANDBOXES = 1_024
"""First processes of pods' sandboxes, whose ends are not reported. No node runs so many pods at the same time."""


class ProcessTable:
    """`apply` each record of trace process, and `find` processes for other records. Times are wall time in ns."""

    def __init__(self, node: str, most: int = MOST_PROCESSES) -> None:
        self.node = node
        self.forgotten = 0
        """processes that were removed before they ended, because there were too many"""
        self._most = most
        self._known: OrderedDict[ExecId, Process] = OrderedDict()
        self._ended: OrderedDict[ExecId, int] = OrderedDict()
        self._sandboxes: deque[ExecId] = deque()
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
        if event.container_pid == 1 and container.kind == "sandbox":
            self._add_sandbox(process.id)
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

    def _add_sandbox(self, id: ExecId) -> None:
        self._sandboxes.append(id)
        if len(self._sandboxes) > MOST_SANDBOXES:
            oldest = self._sandboxes.popleft()
            self._ended.pop(oldest, None)
            self._forget(oldest)

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
