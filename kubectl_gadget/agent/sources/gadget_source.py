"""Bases of the sources that run a gadget's own programs: streams, snapshots, top and recorders."""

import time
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from kubectl_gadget.agent.bpf.links import StoppedPrograms
from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.sources.gadget_programs import GadgetPrograms
from kubectl_gadget.agent.sources.output import Channel, EventsOutput, Piece
from kubectl_gadget.agent.sources.source import NodeContext
from kubectl_gadget.wire.agent_messages import GadgetStats, StartedGadget
from kubectl_gadget.wire.client_messages import GadgetSpec, Update
from kubectl_gadget.wire.frames import LAST, PART, REST

if TYPE_CHECKING:
    from kubectl_gadget.agent.sources.client_tables import ClientTables


class GadgetSource:
    """`spec` is one of RUN's `gadgets`, `elf` its object. Raises AgentError when a required program cannot be
    loaded."""

    def __init__(self, spec: GadgetSpec, elf: bytes, context: NodeContext) -> None:
        self.name = spec.name
        self._spec = spec
        self._context = context
        self.programs = GadgetPrograms(spec, elf, context, self._prepare, self._open)
        self._containers = context.containers
        self._stopped = StoppedPrograms(spec.name, context.warnings.add)
        self._tables: ClientTables | None = None

    def _prepare(self, object: BpfObject) -> None:
        """Prepares what a kind needs before the object is loaded."""

    def _open(self, object: BpfObject, output: EventsOutput, resources: ExitStack) -> None:
        """Opens what a kind needs before its programs are attached; `resources` closes it."""

    @property
    def fd(self) -> int:
        return self.programs.output.fd

    def started(self) -> StartedGadget:
        return StartedGadget(name=self.name, programs=self.programs.started())

    def stats(self) -> GadgetStats:
        programs = self.programs
        return self._stopped.add_to(programs.output.stats(programs.object.missed()), programs.stopped())

    def update(self, update: Update) -> None:
        """Updates entries of the gadget's tables."""
        if self._tables is None:
            from kubectl_gadget.agent.sources.client_tables import ClientTables  # not needed in most sessions

            self._tables = ClientTables(self.name, self.programs.object, self._containers)
        self._tables.update(update)

    def close(self) -> None:
        self.programs.close()

    def _take_stacks(self) -> None:
        if self.programs.stacks:
            self.programs.stacks.take(time.monotonic())
        if self.programs.contents:
            self.programs.contents.take(time.monotonic())

    def _send_stacks(self, channel: Channel) -> None:
        if self.programs.stacks:
            channel.send_stacks(self.programs.stacks)
        if self.programs.contents:
            channel.send_stacks(self.programs.contents)


# Base of the sources whose output is taken at intervals, in pieces, not event by event: snapshots, top and recorders.
#
# A piece is sent only when the containers in it have names, so it waits here, perhaps until after the next
# interval was taken.


class PiecesSource(GadgetSource):
    """A kind adds pieces in `settle`, and overrides other methods if it does more."""

    def __init__(self, spec: GadgetSpec, elf: bytes, context: NodeContext) -> None:
        self._interval = 0
        self._unsent: deque[Piece] = deque()
        super().__init__(spec, elf, context)

    def _add(self, records: Iterable[bytes], is_rest: bool = False) -> None:
        """Adds all records of the next interval, in parts. `is_rest`: the end of the session cut the interval short."""
        parts = [part for part in records if part]
        complete_until = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        # An answer without records is sent, too.
        for number, part in enumerate(parts or [b""], 1):
            flags = PART | (LAST if number >= len(parts) else 0) | (REST if is_rest else 0)
            self._unsent.append(Piece(part, flags, self._interval, complete_until))
        self._interval += 1

    def send(self, channel: Channel) -> int:
        self._send_stacks(channel)
        while self._unsent:
            channel.send_piece(self._unsent.popleft())
        return 0

    @property
    def is_quiet(self) -> bool:
        return not self._unsent

    @property
    def empty(self) -> bool:
        return not self._unsent

    def detach(self) -> None:
        self.programs.detach_uprobes()
        self.programs.object.detach()
