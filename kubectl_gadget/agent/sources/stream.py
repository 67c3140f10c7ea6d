"""Kind `stream`: events as they happen, sent as they are in the ring buffer."""

import math

from kubectl_gadget.agent.bpf.object import BY_HAND, BpfObject
from kubectl_gadget.agent.sources.gadget_source import GadgetSource
from kubectl_gadget.agent.sources.output import Channel
from kubectl_gadget.agent.sources.source import NodeContext
from kubectl_gadget.wire.client_messages import GadgetSpec

_WALK_SECONDS = 1.0


class StreamSource(GadgetSource):
    """Sends the ring's records."""

    due = math.inf

    def __init__(self, spec: GadgetSpec, elf: bytes, context: NodeContext) -> None:
        super().__init__(spec, elf, context)
        self._ring = self.programs.output.ring
        self._walks = MapWalks(self.programs.object)
        if self._walks.programs:
            context.callbacks.each_turn.append(self._walks.turn)

    def settle(self, is_blocked: bool) -> bool:
        settled = self._ring.settle()
        self._take_stacks()
        return settled

    def send(self, channel: Channel) -> int:
        self._send_stacks(channel)
        return channel.send_ring(self._ring)

    @property
    def is_quiet(self) -> bool:
        return self._ring.is_quiet and not self.programs.stacks

    @property
    def empty(self) -> bool:
        return not len(self._ring.batch())

    def detach(self) -> None:
        self.programs.detach_uprobes()
        self._walks.detach()


class MapWalks:
    """Walks over the map `gadget_walked` of an object, which send what its programs have only counted: each second, and
    again after all programs were detached, so that no count is missed."""

    def __init__(self, object: BpfObject) -> None:
        self._object = object
        self.programs = [name for name in object.chosen if object.section(name) == BY_HAND]
        self._due = 0.0

    def turn(self, now: float) -> None:
        """Call it often, with time.monotonic()."""
        if now >= self._due:
            self._due = now + _WALK_SECONDS
            self._walk()

    def detach(self) -> None:
        self._object.detach()
        self._walk()

    def _walk(self) -> None:
        for program in self.programs:
            self._object.run(program)
