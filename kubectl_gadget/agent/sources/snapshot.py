"""Kind `snapshot`: the current state, taken once."""

import math
from contextlib import ExitStack

from kubectl_gadget.agent.answers.iterators import Iterators
from kubectl_gadget.agent.answers.samplers import sampled
from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.sources.context import NodeContext
from kubectl_gadget.agent.sources.events_output import EventsOutput
from kubectl_gadget.agent.sources.pieces_source import PiecesSource
from kubectl_gadget.wire.client_messages import GadgetSpec


class SnapshotSource(PiecesSource):
    """`spec` is one of RUN's `gadgets`, `elf` its object."""

    def __init__(self, spec: GadgetSpec, elf: bytes, context: NodeContext) -> None:
        self._iterators: Iterators
        self.due = 0.0

        def open(object: BpfObject, output: EventsOutput, resources: ExitStack) -> None:
            self._iterators = Iterators(object, sampled(spec, context.containers), context.warnings.add)
            resources.callback(self._iterators.close)

        super().__init__(spec, elf, context, open)

    def settle(self, is_blocked: bool) -> bool:
        if not is_blocked and self.due != math.inf:
            self.due = math.inf
            self._pieces.add(self._iterators.take())
        self._take_stacks()
        return True
