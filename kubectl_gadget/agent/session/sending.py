"""One turn of a session: sends what has come from the kernel since the last turn, in a safe order.

First the end of each events ring is noted, then the cgroup changes are read and sent, then the events up to the noted
ends. So a container's name is sent before its first event, and its removal only after its last one. Call stacks are
handled the same way. The trap: any other order passes every test and fails on a busy node.
"""

import math
from collections.abc import Sequence

from kubectl_gadget.agent.containers.tracking import Containers
from kubectl_gadget.agent.pipe import FramePipe
from kubectl_gadget.agent.sources.output import Channel
from kubectl_gadget.agent.sources.source import Callbacks, Source
from kubectl_gadget.wire.agent_messages import ContainerChanges, encode_message


class Sender:
    """Sends the output of `sources` into `pipe`."""

    def __init__(
        self, sources: Sequence[Source], containers: Containers, callbacks: Callbacks, pipe: FramePipe
    ) -> None:
        self._sources = sources
        self._channels = [(source, Channel(index, pipe)) for index, source in enumerate(sources)]
        self._containers = containers
        self._callbacks = callbacks
        self._pipe = pipe
        self._removed: list[int] = []
        self._has_sent = True

    @property
    def is_quiet(self) -> bool:
        """True if a turn would find nothing: the last one found nothing, and nothing has come since. This is the cheap
        check of a session at rest."""
        return (
            not self._has_sent
            and not self._pipe.blocked
            and self._containers.is_quiet
            and all(source.is_quiet for source in self._sources)
        )

    def turn(self) -> bool:
        """Returns True when events were sent. Never blocks, and does little while the reader is behind."""
        self._has_sent = True
        self._pipe.flush()
        is_blocked = self._pipe.full
        settled = [source.settle(is_blocked) for source in self._sources]
        # Names must be read while containers and processes exist, whether they can be sent now or not.
        named = self._containers.drain()
        if is_blocked:
            return False
        if changes := self._containers.take_changes():
            self._pipe.put(encode_message(changes))
        sent = 0
        if named:
            for (source, channel), is_settled in zip(self._channels, settled, strict=True):
                if is_settled:
                    sent += source.send(channel)
            if all(settled):
                self._has_sent = bool(sent or changes or self._removed)
                self._send_removed()
                self._has_sent |= bool(self._removed)
        self._pipe.flush()
        return sent > 0

    @property
    def due(self) -> float:
        """The latest time for the next turn of a source, on the monotonic clock; inf while the reader is too far
        behind."""
        if self._pipe.full:
            return math.inf
        return min((source.due for source in self._sources), default=math.inf)

    @property
    def report_due(self) -> float:
        """The time when an idle source has to report, on the monotonic clock. inf if the last turn sent something, or
        could not: another one right away would not help."""
        if self._has_sent:
            return math.inf
        return min((channel.due for _, channel in self._channels), default=math.inf)

    @property
    def empty(self) -> bool:
        """True if nothing is left in any source or in the pipe. Only meaningful after a turn."""
        return not self._pipe.blocked and all(source.empty for source in self._sources)

    def _send_removed(self) -> None:
        """Sends the removals that the previous turn saw: all their events have been sent by now."""
        if self._removed:
            removed = ContainerChanges(containers=(), cgroups={}, removed=tuple(self._removed))
            self._pipe.put(encode_message(removed))
        self._removed = self._containers.take_removed()
        if self._removed:
            for call in self._callbacks.removed:
                call(self._removed)
