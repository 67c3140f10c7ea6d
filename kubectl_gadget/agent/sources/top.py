"""Kind `top`: sums of each interval, and of the unfinished last one when the session ends."""

import math
import time
from contextlib import ExitStack

from kubectl_gadget.agent.answers.samplers import Sampled
from kubectl_gadget.agent.answers.totals import Totals
from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.sources.context import NodeContext
from kubectl_gadget.agent.sources.events_output import EventsOutput
from kubectl_gadget.agent.sources.pieces_source import PiecesSource
from kubectl_gadget.errors import FrameError
from kubectl_gadget.wire.client_messages import GadgetSpec


class TopSource(PiecesSource):
    """Takes the sums when an interval is over."""

    _totals: Totals

    def __init__(self, spec: GadgetSpec, elf: bytes, context: NodeContext) -> None:
        if spec.interval_ms <= 0 or spec.record_bytes <= 0:
            raise FrameError(f"RUN: {spec.name} has no `interval_ms` or no `record_bytes`")
        self._seconds = spec.interval_ms / 1000
        self._is_detached = False
        self.due = math.inf
        super().__init__(spec, elf, context)
        context.callbacks.each_turn.append(self._totals.walk)
        if self._programs.stacks:
            context.callbacks.each_turn.append(self._programs.stacks.take)

    def _open(self, object: BpfObject, output: EventsOutput, resources: ExitStack) -> None:
        sampled = Sampled(self._spec, self._context.containers, self._context.warnings.add)
        resources.callback(sampled.close)
        self._totals = Totals(object, self._spec.record_bytes, sampled)
        self.due = time.monotonic() + self._seconds

    def settle(self, is_blocked: bool) -> bool:
        now = time.monotonic()
        if not is_blocked and now >= self.due:
            self._add(self._totals.take(), is_rest=self._is_detached)
            # After a delay, intervals are not shortened to catch up: each has its real length in its records.
            self.due = math.inf if self._is_detached else max(self.due + self._seconds, now)
        self._take_stacks()
        return True

    @property
    def is_quiet(self) -> bool:
        return not self._unsent and (self._programs.stacks is None or self._programs.stacks.is_quiet)

    def detach(self) -> None:
        self._totals.add_up()
        super().detach()
        self._is_detached = True
        self.due = 0.0
