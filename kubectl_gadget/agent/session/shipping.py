"""One turn of a session: what came out of the kernel since the last turn goes into frames, in an order that is safe.

First the end of each events ring is noted, then the cgroup changes are drained and sent, then the events up to the
noted ends. So a container's name is sent before its first event, and that it is gone only after its last. Call stacks
go the same way. The trap: any other order works in every test and fails on a busy node.
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
    """Ships what `sources` have into `pipe`."""

    def __init__(
        self, sources: Sequence[Source], containers: Containers, callbacks: Callbacks, pipe: FramePipe
    ) -> None:
        self._sources = sources
        self._channels = [(source, Channel(index, pipe)) for index, source in enumerate(sources)]
        self._containers = containers
        self._callbacks = callbacks
        self._pipe = pipe
        self._removed: list[int] = []

    def turn(self) -> bool:
        """True when events were shipped. Never blocks; does little while the reader has not taken what is there."""
        self._pipe.flush()
        is_blocked = self._pipe.blocked
        settled = [source.settle(is_blocked) for source in self._sources]
        # Names must be read while containers and processes live, whether they can be sent or not.
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
                self._send_removed()
        self._pipe.flush()
        return shipped > 0

    @property
    def due(self) -> float:
        """When the next turn is needed at the latest, by the monotonic clock. While the client takes nothing, sources
        do not take what is due."""
        if self._pipe.blocked:
            return math.inf
        return min((source.due for source in self._sources), default=math.inf)

    @property
    def empty(self) -> bool:
        """Nothing is left in any source nor in the pipe; to be asked after a turn."""
        return not self._pipe.blocked and all(source.empty for source in self._sources)

    def _send_removed(self) -> None:
        """What was seen as removed in the turn before: all its events have been shipped by now."""
        if self._removed:
            removed = ContainerChanges(containers=(), cgroups={}, removed=tuple(self._removed))
            self._pipe.put(encode_message(removed))
        self._removed = self._containers.take_removed()
        if self._removed:
            for call in self._callbacks.removed:
                call(self._removed)
