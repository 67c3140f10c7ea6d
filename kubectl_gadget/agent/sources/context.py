"""What every source gets from its session, passed to its constructor.

The traps: sources are made while another thread writes to the pipe (session/loading.py), so warnings for the user are
collected in Warnings, and the session's own thread sends them. And each session imports this module, so it does not use
dataclasses, which take 10 ms to import.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from kubectl_gadget.agent.bpf.packet_programs import PacketDispatcher, SocketOwners
from kubectl_gadget.agent.bpf.syscall_programs import SyscallDispatcher
from kubectl_gadget.agent.containers.tracking import Containers
from kubectl_gadget.agent.sources.shared_maps import SharedMaps
from kubectl_gadget.agent.symbols.gadget_stacks import Symbols

_MOST_WARNINGS = 256
"""Warnings that are kept while the client reads nothing. Later ones are counted."""
_MOST_KNOWN = 4096
"""Warnings that are remembered, so that none is repeated."""


class Warnings:
    """Texts for the user that were not sent yet, in order and each once; then, how many were dropped."""

    def __init__(self) -> None:
        self._texts: deque[str] = deque()
        self._known: set[str] = set()
        self._dropped = 0

    def add(self, text: str) -> None:
        if text in self._known:
            return
        if len(self._texts) >= _MOST_WARNINGS:
            self._dropped += 1
            return
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known.add(text)
        self._texts.append(text)

    def take(self) -> str | None:
        """Removes and returns the oldest text, or None."""
        if self._texts:
            return self._texts.popleft()
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            return f"{dropped} more warnings were dropped, some perhaps repeated: they came faster than they were read"
        return None

    def take_all(self) -> list[str]:
        """Removes and returns all texts."""
        return list(iter(self.take, None))


class Callbacks:
    """Functions of sources that the session calls, in addition to the methods of every source (source.py)."""

    def __init__(self) -> None:
        self.each_turn: list[Callable[[float], None]] = []
        """Called after each turn with time.monotonic(), until sources are detached."""
        self.show: list[Callable[[], None]] = []
        """Called for SHOW: the user requests what was recorded so far."""
        self.removed: list[Callable[[Sequence[int]], None]] = []
        """Called with the ids of removed cgroups, once all their events have been sent."""
        self.after_last: list[Callable[[], None]] = []
        """Called after the last event was sent."""

    def turn(self, now: float) -> None:
        for call in self.each_turn:
            call(now)


class NodeContext:
    """The context of one session, or of the process that keeps installed policies in force. `wants_cgroup` says whether
    processes of a cgroup matter, by its path in /proc/PID/cgroup. `variables` are values for variables that begin with
    gadget_node_, beside those of `containers`, and `own_processes` variables with the PIDs of processes whose events
    gadgets leave out."""

    def __init__(
        self,
        containers: Containers,
        wants_cgroup: Callable[[str], bool],
        variables: Mapping[str, int] = MappingProxyType({}),
        own_processes: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.containers = containers
        self.wants_cgroup = wants_cgroup
        self.variables = {**containers.variables(), **variables}
        self.own_processes = own_processes
        self.warnings = Warnings()
        self.maps = SharedMaps(containers.shared, self.variables["gadget_node_pid_level"], self.warnings.add)
        self.symbols = Symbols()
        self.calls = SyscallDispatcher()
        """calls the programs that follow single system calls"""
        self.packets = PacketDispatcher()
        """calls the programs for packets, if several gadgets have some"""
        self.owners = SocketOwners()
        """lets one gadget keep the owners of sockets for all"""
        self.callbacks = Callbacks()

    def close(self) -> None:
        """Call it after the sources are closed. Does not close the containers."""
        self.calls.close()
        self.packets.close()
        self.symbols.close()
        self.maps.close()
