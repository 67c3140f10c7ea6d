"""Kind `recorder`: flight recordings, sent at a crash, at SHOW, or at the end of a container or of the session."""

import math
from contextlib import ExitStack

from kubectl_gadget.agent.answers import flight_recorder
from kubectl_gadget.agent.answers.flight_recorder import FlightRecorder
from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.sources.context import NodeContext
from kubectl_gadget.agent.sources.events_output import EventsOutput
from kubectl_gadget.agent.sources.pieces_source import PiecesSource
from kubectl_gadget.errors import FrameError
from kubectl_gadget.wire.client_messages import GadgetSpec


class RecorderSource(PiecesSource):
    """Sends the recordings that were triggered or requested."""

    _recorder: FlightRecorder
    _record_bytes = 0
    due = math.inf

    def __init__(self, spec: GadgetSpec, elf: bytes, context: NodeContext) -> None:
        if spec.recorder is None:
            raise FrameError(f"RUN: {spec.name} is a recorder without `recorder`")
        self._wanted = spec.recorder
        super().__init__(spec, elf, context)
        context.callbacks.show.append(self._recorder.show)
        context.callbacks.removed.append(self._recorder.removed)

    def _prepare(self, object: BpfObject) -> None:
        self._record_bytes = flight_recorder.prepare(object, self._wanted)

    def _open(self, object: BpfObject, output: EventsOutput, resources: ExitStack) -> None:
        self._recorder = FlightRecorder(object, output.ring, self._wanted, self._record_bytes)
        resources.callback(self._recorder.close)

    def settle(self, is_blocked: bool) -> bool:
        if not is_blocked:
            for recording in self._recorder.take():
                self._add([recording])
        self._take_stacks()
        return self._programs.output.ring.settle()

    @property
    def is_quiet(self) -> bool:
        """Never: containers use up spare recordings without waking the session."""
        return False

    @property
    def empty(self) -> bool:
        return super().empty and not len(self._programs.output.ring.batch())

    def detach(self) -> None:
        super().detach()
        self._recorder.end()
