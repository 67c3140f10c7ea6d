"""Which program each process runs, from the rows of trace process, and which program it was started by.

The trap: a process that comes into the container from outside is the container runtime only until its first exec, and
only if it is named like one; a program of the image that is named runc is a program like any other. And what a process
was started by is only known if that was seen: its parent may be another one by now, or run another program.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from posixpath import basename, join, normpath
from typing import Any, NamedTuple

from kubectl_gadget.behavior.facts import ALREADY_RUNNING, RUNTIME
from kubectl_gadget.behavior.from_rows.generalization import Generalizer

_MOST_ENDED = 50_000
Row = Mapping[str, Any]
Place = tuple[str, str, str]
"""namespace, pod and container"""


class Started(NamedTuple):
    """A program that a process began to run."""

    program: str
    by: str


@dataclass
class _Process:
    place: Place
    program: str
    cwd: str = "/"


class Programs:
    """Follows processes. Rows come in order of time."""

    def __init__(self, generalizer: Generalizer) -> None:
        self._generalizer = generalizer
        self._processes: dict[tuple[str, int], _Process] = {}
        self._ended: deque[tuple[str, int]] = deque()
        """rows about an ended process may come later, so it is forgotten late"""

    def of(self, row: Row) -> str:
        """The program that did what a row says; its name where nothing is known of the process."""
        process = self._processes.get((row["node"], row["pid"]))
        return self._generalizer.program(row["comm"] or "?") if process is None else process.program

    def cwd(self, row: Row) -> str:
        """The directory in which the program of a row began."""
        process = self._processes.get((row["node"], row["pid"]))
        return "/" if process is None else process.cwd

    def running(self, place: Place, row: Row) -> Started | None:
        """A process that was there before. None: it is the container runtime's own."""
        is_runtime = self._generalizer.is_runtime(row["exe"] or "")
        program = RUNTIME if is_runtime else self._program(row)
        self._processes[row["node"], row["pid"]] = _Process(place, program, row["cwd"] or "/")
        return None if is_runtime else Started(program, ALREADY_RUNNING)

    def forked(self, place: Place, row: Row) -> None:
        """A process that runs what its parent runs."""
        parent = self._processes.get((row["node"], row["ppid"]))
        if parent is None or parent.place != place:
            program = self._program(row)
            parent = _Process(place, RUNTIME if self._generalizer.is_runtime(row["exe"] or "") else program)
        self._processes[row["node"], row["pid"]] = _Process(place, parent.program, parent.cwd)

    def executed(self, place: Place, row: Row) -> Started | None:
        """A process that runs another program from now on. None: it is the container runtime's own."""
        key = row["node"], row["pid"]
        before, exe = self._processes.get(key), row["exe"] or row["path"] or ""
        is_outside = before is None or before.place != place
        by = RUNTIME if before is None or is_outside else before.program
        again = by == RUNTIME and exe.startswith("/memfd:")
        if self._generalizer.is_runtime(exe) and (is_outside or again):
            self._processes[key] = _Process(place, RUNTIME)
            return None
        program = self._program(row)
        self._processes[key] = _Process(place, program, row["cwd"] or "/")
        return Started(program, by)

    def exited(self, row: Row) -> str:
        """The program that a process ran at its end."""
        program = self.of(row)
        self._ended.append((row["node"], row["pid"]))
        if len(self._ended) > _MOST_ENDED:
            self._processes.pop(self._ended.popleft(), None)
        return program

    def _program(self, row: Row) -> str:
        exe, path = row["exe"] or "", row["path"] or ""
        if row["interpreted"] and path:
            exe = normpath(join(row["cwd"] or "/", path))
        elif basename(exe) in self._generalizer.rules.multicall:
            return self._generalizer.program(f"{exe} {_applet(row['args'] or (), self._generalizer)}".rstrip())
        return self._generalizer.program(exe or path or row["comm"] or "?")


def _applet(args: Any, generalizer: Generalizer) -> str:
    names = [basename(text.removeprefix("-")) for text in args[:2]]
    return next((name for name in names if name not in generalizer.rules.multicall), "")
