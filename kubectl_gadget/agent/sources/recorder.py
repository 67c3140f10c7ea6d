"""Kind `recorder`: flight recordings, shipped on request: at a crash, at SHOW, or at the end of a container."""

import math
from contextlib import ExitStack

from kubectl_gadget.agent.answers import recorder
from kubectl_gadget.agent.answers.pieces import Pieces
from kubectl_gadget.agent.answers.recorder import Recorder
from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.sources.channel import Channel
from kubectl_gadget.agent.sources.context import NodeContext
from kubectl_gadget.agent.sources.events_output import EventsOutput
from kubectl_gadget.agent.sources.gadget_source import GadgetSource
from kubectl_gadget.errors import FrameError
from kubectl_gadget.wire.client_messages import GadgetSpec


class RecorderSource(GadgetSource):
    """`spec` is one of RUN's `gadgets`, `elf` its object."""

    due = math.inf

    def __init__(self, spec: GadgetSpec, elf: bytes, context: NodeContext) -> None:
        self._recorder: Recorder
        self._pieces = Pieces()
        wanted = spec.recorder
        if wanted is None:
            raise FrameError(f"RUN: {spec.name} is a recorder without `recorder`")
        record_bytes = 0

        def prepare(object: BpfObject) -> None:
            nonlocal record_bytes
            record_bytes = recorder.prepare(object, wanted)

        def open(object: BpfObject, output: EventsOutput, resources: ExitStack) -> None:
            self._recorder = Recorder(object, output.ring, wanted, record_bytes)
            resources.callback(self._recorder.close)

        super().__init__(spec, elf, context, open, prepare)
        context.callbacks.show.append(self._recorder.show)
        context.callbacks.removed.append(self._recorder.removed)

    def settle(self, is_blocked: bool) -> bool:
        if not is_blocked:
            for recording in self._recorder.take():
                self._pieces.add([recording])
        self._take_stacks()
        return self._programs.output.ring.settle()

    def ship(self, channel: Channel) -> int:
        self._ship_stacks(channel)
        for piece in self._pieces.take():
            channel.send_piece(piece)
        return 0

    @property
    def empty(self) -> bool:
        return not self._pieces and not len(self._programs.output.ring.batch())

    def detach(self) -> None:
        self._programs.detach_uprobes()
        self._programs.object.detach()
        self._recorder.end()
