"""What every source gets from the session that runs it, all of it in its constructor.

The trap: sources are made while another thread writes to the pipe (session/loading.py), so what a user has to know is
kept in Warnings, and the session's own thread sends it.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from kubectl_gadget.agent.bpf.syscall_programs import SyscallDispatcher
from kubectl_gadget.agent.containers.tracking import Containers
from kubectl_gadget.agent.sources.shared_maps import SharedMaps
from kubectl_gadget.agent.symbols.stacks import Symbols

_MOST_WARNINGS = 256
"""That are kept; a client that reads nothing gets the oldest ones."""


class Warnings:
    """Texts for the user that were not sent yet, in order."""

    def __init__(self) -> None:
        self._texts: deque[str] = deque()

    def add(self, text: str) -> None:
        if len(self._texts) < _MOST_WARNINGS:
            self._texts.append(text)

    def take(self) -> str | None:
        """The oldest one; None when there is none."""
        return self._texts.popleft() if self._texts else None

    def take_all(self) -> list[str]:
        """All of them."""
        found = list(self._texts)
        self._texts.clear()
        return found


class Callbacks:
    """What sources have the session call, beside what every source has (source.py)."""

    def __init__(self) -> None:
        self.each_turn: list[Callable[[float], None]] = []
        """Called after each turn with time.monotonic(), until sources are detached."""
        self.show: list[Callable[[], None]] = []
        """SHOW: the user wants to see what was recorded."""
        self.removed: list[Callable[[Sequence[int]], None]] = []
        """With the ids of cgroups that were removed, once all their events have been shipped."""
        self.after_last: list[Callable[[], None]] = []
        """After the last event was shipped."""

    def turn(self, now: float) -> None:
        for call in self.each_turn:
            call(now)


@dataclass(frozen=True)
class NodeContext:
    """Of one session, or of the process that has installed policies in force."""

    containers: Containers
    maps: SharedMaps
    wants_cgroup: Callable[[str], bool]
    """whether processes of this cgroup matter, by its path in /proc/PID/cgroup"""
    variables: Mapping[str, int]
    """the node's values of variables that begin with gadget_node_"""
    own_processes: Mapping[str, int] = field(default_factory=dict)
    """variables with the numbers of processes whose events gadgets leave out"""
    symbols: Symbols = field(default_factory=Symbols)
    calls: SyscallDispatcher = field(default_factory=SyscallDispatcher)
    """runs the programs that follow single system calls"""
    warnings: Warnings = field(default_factory=Warnings)
    callbacks: Callbacks = field(default_factory=Callbacks)

    def close(self) -> None:
        """After the sources; the containers are their owner's."""
        self.calls.close()
        self.symbols.close()
        self.maps.close()
