"""Which program each process runs, from the rows of trace process, and which program it was started by.

The trap: a process that comes into the container from outside is the container runtime only until its first exec, and
only if it is named like one; a program of the image that is named runc is a program like any other. And what a process
was started by is only known if that was seen: its parent may be another one by now, or run another program.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from posixpath import basename, join, normpath
from typing import Any, NamedTuple

from kubectl_gadget.behavior.facts import ALREADY_RUNNING, RUNTIME
from kubectl_gadget.behavior.from_rows.generalization import Generalizer

_MOST_ENDED = 50_000
_START = timedelta(seconds=10)
"""how long a runtime may take until it executes a container's first program"""
_MEMFD = "/memfd:"
Row = Mapping[str, Any]
PodContainer = tuple[str, str, str]
"""namespace, pod and container"""


class StartedProgram(NamedTuple):
    """A program that a process began to run."""

    program: str
    by: str


@dataclass
class _Process:
    place: PodContainer
    program: str
    cwd: str = "/"


class Programs:
    """Follows processes. Rows come in order of time."""

    def __init__(self, generalizer: Generalizer) -> None:
        self._generalizer = generalizer
        self._processes: dict[tuple[str, int], _Process] = {}
        self._mounts: dict[PodContainer, int] = {}
        """the mount namespace of each container's latest program"""
        self._ended: deque[tuple[tuple[str, int], _Process]] = deque()
        """rows about an ended process may come later, so it is forgotten late"""

    def of(self, row: Row) -> str:
        """The program that a row is about; only its name if the process is unknown."""
        process = self._processes.get((row["node"], row["pid"]))
        if process is not None:
            return process.program
        # A process may give itself any name, but not the path of a program.
        name = self._named(row["comm"] or "?")
        return f"\\{name}" if name.startswith("/") else name

    def cwd(self, row: Row) -> str:
        """The directory in which the program of a row began."""
        process = self._processes.get((row["node"], row["pid"]))
        return "/" if process is None else process.cwd

    def running(self, place: PodContainer, row: Row) -> StartedProgram | None:
        """Adds a process from before the run. None: it is the container runtime's own."""
        if self._is_runtime(row) and not _is_old(row):
            self._processes[row["node"], row["pid"]] = _Process(place, RUNTIME, row["cwd"] or "/")
            return None
        return StartedProgram(self._began(place, row), ALREADY_RUNNING)

    def forked(self, place: PodContainer, row: Row) -> None:
        """Adds a process that runs its parent's program."""
        parent = self._processes.get((row["node"], row["ppid"]))
        if parent is None or parent.place != place:
            program = self._program(row)
            parent = _Process(place, RUNTIME if self._is_runtime(row) else program)
        self._processes[row["node"], row["pid"]] = _Process(place, parent.program, parent.cwd)

    def executed(self, place: PodContainer, row: Row) -> StartedProgram | None:
        """Notes that a process runs another program from now on. None: it is the container runtime's own."""
        key = row["node"], row["pid"]
        before, exe = self._processes.get(key), row["exe"] or row["path"] or ""
        is_outside = before is None or before.place != place
        by = RUNTIME if before is None or is_outside else before.program
        if is_outside:
            # The runtime is not in the mount namespace of the container's programs yet.
            is_runtime = not row["ns_mnt"] or row["ns_mnt"] != self._mounts.get(place)
        else:
            is_runtime = by == RUNTIME and exe.startswith(_MEMFD)
        if is_runtime and self._is_runtime(row):
            self._processes[key] = _Process(place, RUNTIME)
            return None
        return StartedProgram(self._began(place, row), by)

    def exited(self, row: Row) -> str:
        """The program that a process ran at its end."""
        program = self.of(row)
        key = row["node"], row["pid"]
        if key in self._processes:
            self._ended.append((key, self._processes[key]))
        if len(self._ended) > _MOST_ENDED:
            old, ended = self._ended.popleft()
            # Its PID may belong to another process by now.
            if self._processes.get(old) is ended:
                del self._processes[old]
        return program

    def _began(self, place: PodContainer, row: Row) -> str:
        program = self._program(row)
        self._processes[row["node"], row["pid"]] = _Process(place, program, row["cwd"] or "/")
        if row["ns_mnt"]:
            self._mounts[place] = row["ns_mnt"]
        return program

    def _is_runtime(self, row: Row) -> bool:
        """Whether what a process executes may be the container runtime. No path of an image is a memfd."""
        exe = row["exe"] or row["path"] or ""
        return self._generalizer.is_runtime(exe) and not (exe.startswith(_MEMFD) and row["links"])

    def _program(self, row: Row) -> str:
        exe, path = row["exe"] or "", row["path"] or ""
        if row["interpreted"] and path:
            exe = join(row["cwd"] or "/", path)
            # What a `..` leaves may be a link, so it says nothing about where it leads.
            exe = exe if ".." in exe.split("/") else normpath(exe)
        elif basename(exe) in self._generalizer.rules.multicall:
            exe = f"{exe} {_applet(row['args'] or (), self._generalizer)}".rstrip()
        return self._named(exe or path or row["comm"] or "?")

    def _named(self, text: str) -> str:
        """A program's name, escaped so that it cannot look like RUNTIME."""
        found = self._generalizer.program(text)
        return f"\\{found}" if found.startswith("(") else found


def _is_old(row: Row) -> bool:
    """Whether a process that existed before has existed for too long to be a runtime that starts a container."""
    try:
        return datetime.fromisoformat(row["timestamp"]) - datetime.fromisoformat(row["started"]) > _START
    except (TypeError, ValueError):
        return False


def _applet(args: Any, generalizer: Generalizer) -> str:
    names = [basename(text.removeprefix("-")) for text in args[:2]]
    return next((name for name in names if name not in generalizer.rules.multicall), "")
