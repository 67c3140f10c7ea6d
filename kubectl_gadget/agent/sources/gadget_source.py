"""Base of the sources that run a gadget's own programs: streams, snapshots, top and recorders."""

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from kubectl_gadget.agent.bpf.links import StoppedPrograms
from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.sources.channel import Channel
from kubectl_gadget.agent.sources.context import NodeContext
from kubectl_gadget.agent.sources.events_output import EventsOutput
from kubectl_gadget.agent.sources.gadget_programs import GadgetPrograms
from kubectl_gadget.wire.agent_messages import GadgetStats, StartedGadget
from kubectl_gadget.wire.client_messages import GadgetSpec, Update

if TYPE_CHECKING:
    from kubectl_gadget.agent.answers.client_tables import ClientTables


class GadgetSource:
    """`spec` is one of RUN's `gadgets`, `elf` its object. Raises AgentError when a required program cannot be
    loaded."""

    def __init__(self, spec: GadgetSpec, elf: bytes, context: NodeContext) -> None:
        self.name = spec.name
        self._spec = spec
        self._context = context
        self._programs = GadgetPrograms(spec, elf, context, self._prepare, self._open)
        self._containers = context.containers
        self._stopped = StoppedPrograms(spec.name, context.warnings.add)
        self._tables: ClientTables | None = None

    def _prepare(self, object: BpfObject) -> None:
        """Prepares what a kind needs before the object is loaded."""

    def _open(self, object: BpfObject, output: EventsOutput, resources: ExitStack) -> None:
        """Opens what a kind needs before its programs are attached; `resources` closes it."""

    @property
    def fd(self) -> int:
        return self._programs.output.fd

    def started(self) -> StartedGadget:
        return StartedGadget(name=self.name, programs=self._programs.started())

    def stats(self) -> GadgetStats:
        programs = self._programs
        return self._stopped.add_to(programs.output.stats(programs.object.missed()), programs.stopped())

    def update(self, update: Update) -> None:
        """Updates entries of the gadget's tables."""
        if self._tables is None:
            from kubectl_gadget.agent.answers.client_tables import ClientTables  # not needed in most sessions

            self._tables = ClientTables(self.name, self._programs.object, self._containers)
        self._tables.update(update)

    def close(self) -> None:
        self._programs.close()

    def _take_stacks(self) -> None:
        if self._programs.stacks:
            self._programs.stacks.take(time.monotonic())

    def _send_stacks(self, channel: Channel) -> None:
        if self._programs.stacks:
            channel.send_stacks(self._programs.stacks)
