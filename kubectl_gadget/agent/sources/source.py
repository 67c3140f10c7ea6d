"""The interface between a session and its sources: the methods of every source, and the context that it gets.

A source is attached when its constructor returns; the constructor gets everything that the source needs (NodeContext).
The session then calls settle() and send() in turns (session/sending.py). At its end it calls detach(), then settle()
and send() until the source is empty, then close(). The trap: no event may be sent before its container's name, so
send() sends only what settle() found in the same turn.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Protocol

from kubectl_gadget.agent.bpf.object import Turns
from kubectl_gadget.agent.bpf.packet_programs import PacketDispatcher, SocketOwners
from kubectl_gadget.agent.bpf.syscall_programs import SyscallDispatcher
from kubectl_gadget.agent.containers.tracking import Containers
from kubectl_gadget.agent.host import this_node
from kubectl_gadget.agent.sources.output import Channel
from kubectl_gadget.agent.sources.shared_maps import SharedMaps
from kubectl_gadget.agent.symbols.gadget_stacks import Symbols
from kubectl_gadget.errors import AgentError, FrameError
from kubectl_gadget.wire.agent_messages import GadgetStats, StartedGadget
from kubectl_gadget.wire.client_messages import AnyGadget, FilterSpec, GadgetSpec, Update

_MOST_WARNINGS = 256
"""Warnings that are kept while the client reads nothing. Later ones are counted."""
_MOST_KNOWN = 4096
"""Warnings that are remembered, so that none is repeated."""


class Warnings:
    """Texts for the user that were not sent yet, in order and without repetition; then, how many were dropped."""

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
        """Called with the ids of removed cgroups, when all their events have been sent."""
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
        self.turns = Turns()
        """of the threads that make the sources"""
        self.owners = SocketOwners(self.turns)
        """lets one gadget keep the owners of sockets for all"""
        self.callbacks = Callbacks()

    def close(self) -> None:
        """Call it after the sources are closed. Does not close the containers."""
        self.calls.close()
        self.packets.close()
        self.symbols.close()
        self.maps.close()


# The interface of every source, whatever its kind.


class Source(Protocol):
    """One gadget while it runs. Constructors raise AgentError, and then leave nothing attached."""

    name: str

    @property
    def fd(self) -> int:
        """A file descriptor that becomes readable when there is something to settle."""

    @property
    def due(self) -> float:
        """The time when settle() has work that `fd` does not announce, on the monotonic clock; inf: never."""

    @property
    def is_quiet(self) -> bool:
        """True if nothing has arrived since settle(); cheap to ask. While it is true, and before `due`, settle() and
        send() need not be called, except for the reports of idle sources (Channel)."""

    def started(self) -> StartedGadget:
        """Returns its entry in STARTED: which programs were chosen, where they are attached, what was skipped."""

    def stats(self) -> GadgetStats:
        """Returns its entry in the STATS frame: counts since the start."""

    def update(self, update: Update) -> None:
        """Applies an UPDATE. Raises FrameError when it does not fit this kind, AgentError when the kernel refuses
        it."""

    def settle(self, is_blocked: bool) -> bool:
        """Finds the position up to which events are complete, and reads from the kernel what cannot wait: call stacks,
        a snapshot, the sums of an interval. A policy reacts to all events up to there. Returns False when a program is
        still running; nothing may then be sent in this turn. `is_blocked`: the client has not yet read what was sent
        before, so everything that can wait stays in the kernel."""

    def send(self, channel: Channel) -> int:
        """Sends what settle() found, and returns the number of bytes of events. Called after the names of all
        containers in it were sent."""

    @property
    def empty(self) -> bool:
        """True if everything that settle() found was sent, and has left the ring."""

    def detach(self) -> None:
        """Stops new events. Earlier ones can still be settled and sent."""

    def close(self) -> None:
        """Frees everything, after detach()."""


# RUN: makes the sources that a client requests, in the order of its `gadgets`.
#
# The kernel's verifier may take long: it verifies the programs of several sources in parallel, and nothing else of the
# session runs in that time. A kind's modules are
# imported only when RUN requests it, to save memory.

_CLASSES = {
    "stream": ("sources.stream", "StreamSource"),
    "snapshot": ("sources.snapshot", "SnapshotSource"),
    "top": ("sources.top", "TopSource"),
    "recorder": ("sources.recorder", "RecorderSource"),
    "policy": ("policies.policy_source", "PolicySource"),
    "installed": ("installed.feed", "InstalledSource"),
}
KINDS = tuple(_CLASSES)
"""The kinds that HELLO offers."""
OWN_PROCESSES = ("gadget_node_agent", "gadget_node_client")
"""Variables with the PIDs of processes that are left out."""
_MOST_THREADS = 4
"""that load programs; each takes some memory"""
_PACKETS = "packet_sent"
"""The program that every gadget for packets has."""


def node_context(filter: FilterSpec, containers: Containers) -> NodeContext:
    """Returns the context that all sources of a session share. `filter` is RUN's."""
    variables = {"gadget_node_random": int.from_bytes(os.urandom(8), "little")}
    context = NodeContext(containers, containers.wants, variables, _own_processes(filter))
    context.callbacks.each_turn.append(context.maps.turn)
    return context


def make_sources(specs: Sequence[AnyGadget], objects: list[bytes], context: NodeContext) -> list[Source]:
    """Returns the sources, which were made in several threads. Raises AgentError and FrameError, when those that were
    made are closed."""
    context.packets.is_needed = sum(map(_has_packets, specs)) > 1
    for spec in specs:
        if not 0 <= spec.object < len(objects):
            raise FrameError(f"RUN: {spec.name} names the object {spec.object}, but {len(objects)} were sent")
    rest = iter(enumerate(specs))
    made: dict[int, Source] = {}
    errors: dict[int, BaseException] = {}

    def work() -> None:
        with context.turns:
            # They begin in their order, since later ones use the owners that earlier ones keep.
            for number, spec in rest:
                try:
                    made[number] = make_source(spec, objects[spec.object], context)
                except BaseException as error:
                    errors[number] = error
                if errors:
                    return

    threads = [threading.Thread(target=work) for _ in range(min(_MOST_THREADS, os.cpu_count() or 1, len(specs)) - 1)]
    for thread in threads:
        thread.start()
    work()
    for thread in threads:
        thread.join()
    sources = [made[number] for number in sorted(made)]
    if errors:
        for source in reversed(sources):
            source.detach()
        for source in sources:
            source.close()
        raise errors[min(errors)]
    return sources


def make_source(spec: AnyGadget, elf: bytes, context: NodeContext) -> Source:
    """Makes and attaches the source for one of RUN's `gadgets`. Raises AgentError."""
    if spec.kind not in _CLASSES:
        raise AgentError(
            f"gadget {spec.name}: this agent knows no gadgets of kind {spec.kind!r}",
            "kubectl gadget deploy, which updates the agents",
        )
    module, name = _CLASSES[spec.kind]
    source: Source = getattr(import_module(f"kubectl_gadget.agent.{module}"), name)(spec, elf, context)
    return source


def _has_packets(spec: AnyGadget) -> bool:
    sets = [names for choice in spec.programs for names in choice.any_of] if isinstance(spec, GadgetSpec) else []
    return any(_PACKETS in names for names in sets)


def _own_processes(filter: FilterSpec) -> dict[str, int]:
    """Returns variables with the PIDs that gadgets leave out: this process and the client that started it, when host
    processes are wanted, but not these two."""
    if not this_node.client() or not filter.host or filter.own_processes:
        return {}
    return dict(zip(OWN_PROCESSES, (os.getpid(), this_node.client()), strict=True))
