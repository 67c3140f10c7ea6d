"""Kind `snapshot`: the current state, taken once."""

import math
from contextlib import ExitStack

from kubectl_gadget.agent.answers.iterators import Iterators
from kubectl_gadget.agent.answers.samplers import Sampled
from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.sources.events_output import EventsOutput
from kubectl_gadget.agent.sources.pieces_source import PiecesSource


class SnapshotSource(PiecesSource):
    """Takes its pieces once, in the first turn."""

    _iterators: Iterators
    due = 0.0

    def _open(self, object: BpfObject, output: EventsOutput, resources: ExitStack) -> None:
        sampled = Sampled(self._spec, self._context.containers, self._context.warnings.add)
        resources.callback(sampled.close)
        self._iterators = Iterators(object, sampled, self._context.warnings.add)

    def settle(self, is_blocked: bool) -> bool:
        if not is_blocked and self.due != math.inf:
            self.due = math.inf
            self._add(self._iterators.take())
        self._take_stacks()
        return True
