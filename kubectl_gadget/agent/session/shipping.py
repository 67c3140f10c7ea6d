"""One turn of a session: turns what came out of the kernel since the last turn into frames, in a safe order.

First the end of each events ring is noted, then the cgroup changes are drained and sent, then the events up to the
noted ends. So a container's name is sent before its first event, and its removal only after its last one. Call stacks
are handled the same way. The trap: any other order passes every test and fails on a busy node.
"""

import math
from collections.abc import Sequence

from kubectl_gadget.agent.containers.tracking import Containers
from kubectl_gadget.agent.pipe import FramePipe
from kubectl_gadget.agent.sources.channel import Channel
from kubectl_gadget.agent.sources.context import Callbacks
from kubectl_gadget.agent.sources.source import Source
from kubectl_gadget.wire.agent_messages import ContainerChanges, encode_message


class Shipper:
    """Ships the output of `sources` into `pipe`."""

    def __init__(
        self, sources: Sequence[Source], containers: Containers, callbacks: Callbacks, pipe: FramePipe
    ) -> None:
        self._sources = sources
        self._channels = [(source, Channel(index, pipe)) for index, source in enumerate(sources)]
        self._containers = containers
        self._callbacks = callbacks
        self._pipe = pipe
        self._removed: list[int] = []
        self._has_shipped = True

    @property
    def is_quiet(self) -> bool:
        """Whether a turn would find nothing: there was nothing in the last one, and nothing has come since. The cheap
        look of a session at rest."""
        return (
            not self._has_shipped
            and not self._pipe.blocked
            and self._containers.is_quiet
            and all(source.is_quiet for source in self._sources)
        )

    def turn(self) -> bool:
        """Returns True when events were shipped. Never blocks, and does little while the reader is behind."""
        self._has_shipped = True
        self._pipe.flush()
        is_blocked = self._pipe.full
        settled = [source.settle(is_blocked) for source in self._sources]
        # Names must be read while containers and processes live, whether they can be sent now or not.
        named = self._containers.drain()
        if is_blocked:
            return False
        if changes := self._containers.take_changes():
            self._pipe.put(encode_message(changes))
        shipped = 0
        if named:
            for (source, channel), is_settled in zip(self._channels, settled, strict=True):
                if is_settled:
                    shipped += source.ship(channel)
            if all(settled):
                self._has_shipped = bool(shipped or changes or self._removed)
                self._send_removed()
                self._has_shipped |= bool(self._removed)
        self._pipe.flush()
        return shipped > 0

    @property
    def due(self) -> float:
        """When the next turn is needed at the latest, on the monotonic clock. While the client takes nothing, sources
        do not take what is due."""
        if self._pipe.full:
            return math.inf
        return min((source.due for source in self._sources), default=math.inf)

    @property
    def report_due(self) -> float:
        """When an idle source has to report, on the monotonic clock. inf, too, if one could not in the last turn: the
        next one is no better if it comes at once."""
        if self._has_shipped:
            return math.inf
        return min((channel.due for _, channel in self._channels), default=math.inf)

    @property
    def empty(self) -> bool:
        """Whether nothing is left in any source or in the pipe. Only meaningful after a turn."""
        return not self._pipe.blocked and all(source.empty for source in self._sources)

    def _send_removed(self) -> None:
        """Sends the removals seen in the turn before: all their events have been shipped by now."""
        if self._removed:
            removed = ContainerChanges(containers=(), cgroups={}, removed=tuple(self._removed))
            self._pipe.put(encode_message(removed))
        self._removed = self._containers.take_removed()
        if self._removed:
            for call in self._callbacks.removed:
                call(self._removed)
