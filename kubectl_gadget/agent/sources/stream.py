"""Kind `stream`: events as they happen, sent as they are in the ring buffer."""

import math
from contextlib import ExitStack

from kubectl_gadget.agent.answers.map_walks import MapWalks
from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.sources.channel import Channel
from kubectl_gadget.agent.sources.context import NodeContext
from kubectl_gadget.agent.sources.events_output import EventsOutput
from kubectl_gadget.agent.sources.gadget_source import GadgetSource
from kubectl_gadget.wire.client_messages import GadgetSpec


class StreamSource(GadgetSource):
    """Sends the ring's records."""

    _walks: MapWalks
    due = math.inf

    def __init__(self, spec: GadgetSpec, elf: bytes, context: NodeContext) -> None:
        super().__init__(spec, elf, context)
        self._ring = self._programs.output.ring
        if self._walks.programs:
            context.callbacks.each_turn.append(self._walks.turn)

    def _open(self, object: BpfObject, output: EventsOutput, resources: ExitStack) -> None:
        self._walks = MapWalks(object)

    def settle(self, is_blocked: bool) -> bool:
        settled = self._ring.settle()
        self._take_stacks()
        return settled

    def send(self, channel: Channel) -> int:
        self._send_stacks(channel)
        return channel.send_ring(self._ring)

    @property
    def is_quiet(self) -> bool:
        return self._ring.is_quiet and not self._programs.stacks

    @property
    def empty(self) -> bool:
        return not len(self._ring.batch())

    def detach(self) -> None:
        self._programs.detach_uprobes()
        self._walks.detach()
