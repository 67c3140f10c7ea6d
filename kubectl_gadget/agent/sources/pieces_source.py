"""Base of the sources whose output is taken at intervals, in pieces, not event by event: snapshots, top and recorders.

The trap: a piece is sent only when the containers in it have names, so it waits here, perhaps until after the next
interval was taken.
"""

import time
from collections import deque
from collections.abc import Iterable

from kubectl_gadget.agent.sources.channel import Channel, Piece
from kubectl_gadget.agent.sources.context import NodeContext
from kubectl_gadget.agent.sources.gadget_source import GadgetSource
from kubectl_gadget.wire.client_messages import GadgetSpec
from kubectl_gadget.wire.frames import LAST, PART, REST


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
        self._programs.detach_uprobes()
        self._programs.object.detach()
