"""Base of the sources whose output is taken at intervals, in pieces: snapshots, top and recorders."""

from kubectl_gadget.agent.answers.pieces import Pieces
from kubectl_gadget.agent.sources.channel import Channel
from kubectl_gadget.agent.sources.context import NodeContext
from kubectl_gadget.agent.sources.gadget_source import GadgetSource
from kubectl_gadget.wire.client_messages import GadgetSpec


class PiecesSource(GadgetSource):
    """A kind adds pieces in `settle`, and overrides other methods if it does more."""

    def __init__(self, spec: GadgetSpec, elf: bytes, context: NodeContext) -> None:
        self._pieces = Pieces()
        super().__init__(spec, elf, context)

    def send(self, channel: Channel) -> int:
        self._send_stacks(channel)
        for piece in self._pieces.take():
            channel.send_piece(piece)
        return 0

    @property
    def is_quiet(self) -> bool:
        return not self._pieces

    @property
    def empty(self) -> bool:
        return not self._pieces

    def detach(self) -> None:
        self._programs.detach_uprobes()
        self._programs.object.detach()
