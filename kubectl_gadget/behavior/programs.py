"""Finds the program that each process runs, and the program that started it, in the rows of trace process.

The trap: a process that comes into the container from outside is the container runtime only until its first exec, and
only if it is named like one; a program of the image that is named runc is a program like any other. And the program
that started a process is known only if the start was seen: by now, its parent may be another process, or run another
program.

Rows of other gadgets may come before the row that tells what their process runs (gadgets are attached one after the
other) or after the row of its next exec, so a row is joined by its time, and by `exec_id` where it has one.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from posixpath import basename, join, normpath
from typing import Any, NamedTuple

from kubectl_gadget.behavior.facts import ALREADY_RUNNING, RUNTIME, Unit
from kubectl_gadget.behavior.generalization import Generalizer
from kubectl_gadget.kube.inventory import Inventory, Workload

MOST_ENDED = 50_000
_START = timedelta(seconds=10)
"""how long a runtime may take until it executes a container's first program"""
_MEMFD = "/memfd:"
_CODE, _MODULE = re.compile(r"-[A-Za-z]*[ce]|-r|--eval"), re.compile(r"-[A-Zbdiqsuv]*m")
"""options of interpreters, alone or the last of several letters: -Ic of python3, -ec of sh, -e of perl and node"""
_WITH_VALUE = frozenset({"-W", "-X", "-cp", "-classpath", "--class-path", "-O", "-o"})
Row = Mapping[str, Any]
PodContainer = tuple[str, str, str]
"""namespace, pod and container"""
TemporaryFolders = Callable[[PodContainer, str], Iterable[int]]
"""Returns the lengths of the directories above a path that a container made for temporary files."""


class StartedProgram(NamedTuple):
    """A program that a process began to run."""

    program: str
    by: str


@dataclass
class Process:
    """The program of a process, from one exec to the next."""

    place: PodContainer
    program: str
    cwd: str = "/"
    since: str = ""
    """when it began to (RFC 3339); of a process from before the run, when it was forked"""
    exec_id: str = ""
    """empty: not recorded"""
    before: "Process | None" = None
    """what it ran before; None: unknown, or two programs ago"""
    is_old: bool = False
    """it ran before it was watched"""
    has_ended: bool = False


class Programs:
    """Follows processes. Rows come nearly in order of time."""

    def __init__(self, generalizer: Generalizer, temporary_folders: TemporaryFolders = lambda place, path: ()) -> None:
        self._generalizer = generalizer
        self._temporary_folders = temporary_folders
        self._processes: dict[tuple[str, int], Process] = {}
        self._mounts: dict[PodContainer, int] = {}
        """the mount namespace of each container's latest program"""
        self._ended: deque[tuple[tuple[str, int], Process]] = deque()
        """rows about an ended process may come later, so it is forgotten late"""

    def find(self, row: Row) -> Process | None:
        """Return what the process of a row ran at its time; None: not known (yet)."""
        process, exec_id = self._processes.get((row["node"], row["pid"])), row.get("exec_id")
        while process is not None:
            if exec_id and process.exec_id:
                if exec_id == process.exec_id:
                    return process
            elif row["timestamp"] >= process.since:
                return process
            process = process.before
        return None

    def may_be_found(self, row: Row) -> bool:
        """Return False if a row is older than everything that will be known of its process."""
        process = self._processes.get((row["node"], row["pid"]))
        while process is not None and process.before is not None:
            process = process.before
        return process is None or row["timestamp"] >= process.since

    def name_of(self, row: Row) -> str:
        """Return the name of a row's thread, for runs that do not watch processes."""
        # A process may give itself any name, but not the path of a program.
        name = self._named(row["comm"] or "?")
        return f"\\{name}" if name.startswith("/") else name

    def alive(self) -> Iterator[tuple[tuple[str, int], Process]]:
        """Yield the processes that have not ended, with node and PID, but not the container runtime's own."""
        for key, process in self._processes.items():
            if not process.has_ended and process.program != RUNTIME:
                yield key, process

    def running(self, place: PodContainer, row: Row) -> StartedProgram | None:
        """Add a process from before the run. None: it is the container runtime's own, or known by its exec."""
        key, since = (row["node"], row["pid"]), row.get("started") or ""
        known, exec_id = self._processes.get(key), row.get("exec_id") or ""
        while known is not None and exec_id:
            if known.exec_id == exec_id:
                return None
            known = known.before
        if self._is_runtime(row) and not _is_old(row):
            self._processes[key] = Process(place, RUNTIME, row["cwd"] or "/", since, exec_id, is_old=True)
            return None
        return StartedProgram(self._began(place, row, since, is_old=True), ALREADY_RUNNING)

    def forked(self, place: PodContainer, row: Row) -> None:
        """Add a process that runs its parent's program."""
        parent = self._processes.get((row["node"], row["ppid"]))
        if parent is None or parent.place != place:
            program = self._program(place, row)
            parent = Process(place, RUNTIME if self._is_runtime(row) else program)
        self._add(row, Process(place, parent.program, parent.cwd))

    def executed(self, place: PodContainer, row: Row) -> StartedProgram | None:
        """Note that a process runs another program now. None: it is the container runtime's own."""
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
            self._add(row, Process(place, RUNTIME))
            return None
        return StartedProgram(self._began(place, row, row["timestamp"]), by)

    def exited(self, row: Row) -> Process | None:
        """Return what a process ran at its end; None: not known."""
        key = row["node"], row["pid"]
        ended = self._processes.get(key)
        if ended is not None:
            ended.has_ended = True
            self._ended.append((key, ended))
        if len(self._ended) > MOST_ENDED:
            old, first = self._ended.popleft()
            # Its PID may belong to another process by now.
            if self._processes.get(old) is first:
                del self._processes[old]
        return ended

    def _add(self, row: Row, process: Process, since: str | None = None) -> None:
        """Begin a program of the row's process. Of the programs before it, the last one is kept."""
        key = row["node"], row["pid"]
        process.since = row["timestamp"] if since is None else since
        process.exec_id = row.get("exec_id") or ""
        process.before = self._processes.get(key)
        if process.before is not None:
            process.before.before = None
        self._processes[key] = process

    def _began(self, place: PodContainer, row: Row, since: str, is_old: bool = False) -> str:
        program = self._program(place, row)
        self._add(row, Process(place, program, row["cwd"] or "/", is_old=is_old), since)
        if row["ns_mnt"]:
            self._mounts[place] = row["ns_mnt"]
        return program

    def _is_runtime(self, row: Row) -> bool:
        """True if what a process executes may be the container runtime. No path of an image is a memfd."""
        exe = row["exe"] or row["path"] or ""
        return self._generalizer.is_runtime(exe) and not (exe.startswith(_MEMFD) and row["links"])

    def _program(self, place: PodContainer, row: Row) -> str:
        exe, path = row["exe"] or "", row["path"] or ""
        of_script = ""
        if row["interpreted"] and path:
            exe = join(row["cwd"] or "/", path)
            # What a `..` leaves may be a link, so it says nothing about where it leads.
            exe = exe if ".." in exe.split("/") else normpath(exe)
        elif basename(exe) in self._generalizer.rules.multicall:
            exe = f"{exe} {_applet(row['args'] or (), self._generalizer)}".rstrip()
        elif self._generalizer.is_interpreter(exe) and (script := script_of(row["args"] or (), row["cwd"] or "/")):
            of_script = f" {self._generalizer.path(script)}"
        if exe and (below := self._generalizer.program_below(exe, self._temporary_folders(place, exe))):
            return f"{below}{of_script}"
        return f"{self._named(exe or path or row['comm'] or '?')}{of_script}"

    def _named(self, text: str) -> str:
        """A program's name, escaped so that it cannot look like RUNTIME."""
        found = self._generalizer.program(text)
        return f"\\{found}" if found.startswith("(") else found


def _is_old(row: Row) -> bool:
    """True if a process that existed before has existed for too long to be a runtime that starts a container."""
    try:
        return datetime.fromisoformat(row["timestamp"]) - datetime.fromisoformat(row["started"]) > _START
    except (TypeError, ValueError):
        return False


def _applet(args: Any, generalizer: Generalizer) -> str:
    names = [basename(text.removeprefix("-")) for text in args[:2]]
    return next((name for name in names if name not in generalizer.rules.multicall), "")


def script_of(args: Sequence[str], cwd: str) -> str:
    """The code that an interpreter runs: a script's path, `-m MODULE`, `-jar FILE`, or `-c` for code in an argument;
    empty: unknown, such as standard input."""
    words = iter(args[1:])
    for word in words:
        if not word.startswith("-"):
            return normpath(join(cwd, word))
        if word == "-jar":
            return f"-jar {normpath(join(cwd, next(words, '')))}"
        if word in _WITH_VALUE:
            next(words, None)
        elif _CODE.fullmatch(word):
            return "-c"
        elif _MODULE.fullmatch(word):
            return f"-m {next(words, '')}"
    return ""


def unit_of(place: PodContainer, inventory: Inventory, generalizer: Generalizer) -> Unit:
    """Return the workload's container that a container of a pod is an instance of.

    By the pod's owner where it is known, else by its name; a container without a pod is a workload of its own.
    """
    namespace, pod, container = place
    known = inventory.pod(namespace, pod) if pod else None
    if known is not None and known.owner_kind:
        return Unit(known.workload, container)
    name = generalizer.pod(pod or container)
    return Unit(Workload(namespace, "Pod" if pod else "Container", name), container)
