"""The processes, peers, names and files that a run saw, for summaries and attestations.

A program may open a million different files, so each table has a limit; entries above it are only counted.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

from kubectl_gadget.linux.names import USUAL_DEVICES

_Key = TypeVar("_Key")
_MOST = 10_000
_LONGEST_ARGUMENTS = 20


@dataclass
class SeenProcess:
    """One program that a process ran."""

    id: str
    parent: str
    """the nearest one above it that executed a program"""
    program: str
    arguments: tuple[str, ...] = ()
    pid: int = 0
    container: str = ""
    """NAMESPACE/POD/CONTAINER; empty: none"""
    started: str = ""
    ended: str = ""
    """the exit code, when it is not 0, or the signal: `1`, `SIGSEGV`"""


@dataclass(frozen=True)
class RemoteEnd:
    """The other end of connections that were made or accepted, without the numbers that differ in each."""

    operation: str
    """connect, accept, listen"""
    protocol: str
    address: str
    port: int
    program: str
    name: str = ""
    """as it was resolved"""


@dataclass(frozen=True)
class FileUse:
    """A file that was opened."""

    path: str
    access: str
    """read or write"""
    error: str = ""

    @property
    def is_probe(self) -> bool:
        """True if the file did not exist. This seldom matters: programs look for a file in many places."""
        return self.error in ("ENOENT", "ENOTDIR")

    @property
    def is_terminal(self) -> bool:
        """True if the file is a terminal, /dev/null or a similar device, which stores nothing."""
        return self.path in USUAL_DEVICES or self.path.startswith("/dev/pts/")


@dataclass
class Activity:
    """The activity that a run saw. `not_listed` counts entries above the limits."""

    processes: dict[str, SeenProcess] = field(default_factory=dict)
    peers: Counter[RemoteEnd] = field(default_factory=Counter)
    names: Counter[str] = field(default_factory=Counter)
    files: Counter[FileUse] = field(default_factory=Counter)
    not_listed: Counter[str] = field(default_factory=Counter)

    def add_process(self, process: SeenProcess) -> None:
        """Adds a program, or replaces it by what its process ran next."""
        if process.id in self.processes or len(self.processes) < _MOST:
            process.arguments = process.arguments[:_LONGEST_ARGUMENTS]
            self.processes[process.id] = process
        else:
            self.not_listed["processes"] += 1

    def add_peer(self, peer: RemoteEnd) -> None:
        self._count("peers", self.peers, peer)

    def name_peers(self, named: Callable[[str], str]) -> None:
        """Gives peers the names of their addresses; `named` returns "" for an address without one."""
        peers, self.peers = self.peers, Counter()
        for peer, number in peers.items():
            self._count("peers", self.peers, replace(peer, name=peer.name or named(peer.address)), number)

    def add_name(self, name: str) -> None:
        self._count("names", self.names, name)

    def add_files(self, uses: Iterable[FileUse]) -> None:
        for use, number in Counter(uses).items():
            self._count("files", self.files, use, number)

    def _count(self, kind: str, table: Counter[_Key], key: _Key, number: int = 1) -> None:
        if key in table or len(table) < _MOST:
            table[key] += number
        else:
            self.not_listed[kind] += number

    def tree(self) -> Iterator[tuple[int, SeenProcess]]:
        """Yields depth and process, children below their parents, in the order in which they were seen."""
        children: dict[str, list[SeenProcess]] = {}
        for process in self.processes.values():
            parent = process.parent if process.parent in self.processes and process.parent != process.id else ""
            children.setdefault(parent, []).append(process)
        pending = [(0, process) for process in reversed(children.get("", []))]
        while pending:
            depth, process = pending.pop()
            yield depth, process
            pending += [(depth + 1, child) for child in reversed(children.pop(process.id, []))]
