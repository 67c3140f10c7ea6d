"""One program that a process runs, from its exec to the next exec or the end, as part of a story.

The trap: a process that was forked and has not executed anything yet runs its parent's program, but is a process of its
own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from posixpath import basename

from kubectl_gadget.observe.happening import ProcessEvent
from kubectl_gadget.rows.container_lookup import Container
from kubectl_gadget.wire.policy_events.exec_id import ExecId

_NO_NAME = ("/dev/fd/", "/proc/")
"""A program that was executed through a descriptor has such a path, which carries no information."""


@dataclass(eq=False)
class Process:
    """What is known about a process. `binary` is None when its exec was not seen."""

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
        """Whether it descends from the first process of its container; processes of kubectl exec do not."""
        return self.is_first or any(process.is_first for process in self.ancestors())

    @property
    def references(self) -> int:
        """How many still need it: itself and its children."""
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
    """How the process became known, and what is missing. `forked`: this is the first program since the fork."""
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
