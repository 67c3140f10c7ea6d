"""One turn of a session: what came out of the kernel since the last turn goes into frames, in an order that is safe.

First the end of each events ring is noted, then the cgroup changes are drained and sent, then the events up to the
noted ends. So a container's name is sent before its first event, and that it is gone only after its last. Call stacks
go the same way. The trap: any other order works in every test and fails on a busy node.
"""

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kubectl_gadget.agent.answers.answer import Answer
from kubectl_gadget.agent.containers.tracking import Containers
from kubectl_gadget.agent.gadget import Gadget
from kubectl_gadget.agent.installed.installed_events import InstalledEvents
from kubectl_gadget.agent.pipe import FramePipe
from kubectl_gadget.wire import EventsHeader, FrameType, encode, encode_json, header

_EVENTS_HEAD = 24
_SAY_COMPLETE_NS = 400_000_000
"""An idle gadget says this often until when it is complete: a span that is missing is known no better than that."""

if TYPE_CHECKING:
    from kubectl_gadget.agent.policies.policy import Policies

    _Shipped = Gadget | Policies | InstalledEvents


class Shipper:
    """Ships for `gadgets` into `pipe`."""

    def __init__(self, gadgets: "Sequence[_Shipped]", containers: Containers, pipe: FramePipe) -> None:
        self._gadgets = gadgets
        self._containers = containers
        self._pipe = pipe
        self._removed: list[int] = []
        self._last_sent = dict.fromkeys(range(len(gadgets)), 0)
        self._last_bytes = dict.fromkeys(range(len(gadgets)), 0)

    def turn(self) -> bool:
        """True when events were shipped. Never blocks; does little while the reader has not taken what is there."""
        self._pipe.flush()
        if self._pipe.blocked:
            # Names must be read while containers and processes live, whether they can be sent or not.
            self._containers.drain()
            self._take_stacks()
            self._settle()
            return False
        now = time.monotonic()
        for gadget in self._gadgets:
            if gadget.answer:
                gadget.answer.collect(now)
        settled = self._settle()
        self._take_stacks()
        named = self._containers.drain()
        if changes := self._containers.take_changes():
            self._pipe.put(encode_json(FrameType.CONTAINERS, changes))
        for gadget in self._gadgets:
            if gadget.stacks and (told := gadget.stacks.tell()):
                self._pipe.put(encode_json(FrameType.STACKS, {"gadget": gadget.index, **told}))
        shipped = 0
        if named:
            for gadget, ok in zip(self._gadgets, settled, strict=True):
                if gadget.answer:
                    self._ship_answer(gadget, gadget.answer)
                elif ok:
                    shipped += self._ship(gadget)
            if all(settled):
                self._send_removed()
        self._pipe.flush()
        return shipped > 0

    def _settle(self) -> list[bool]:
        """Finds how far each ring is complete; who acts on events does so now, whether they can be shipped or not."""
        settled = [gadget.ring.settle() for gadget in self._gadgets]
        for gadget in self._gadgets:
            gadget.react()
        return settled

    @property
    def due(self) -> float:
        """When the next turn is needed at the latest, by the monotonic clock."""
        return min((gadget.answer.due for gadget in self._gadgets if gadget.answer), default=math.inf)

    def empty(self) -> bool:
        """Nothing is left in any ring nor in the pipe; to be asked after a turn."""
        if self._pipe.blocked or any(gadget.answer.waiting for gadget in self._gadgets if gadget.answer):
            return False
        return not any(len(gadget.ring.batch()) for gadget in self._gadgets)

    def _take_stacks(self) -> None:
        for gadget in self._gadgets:
            if gadget.stacks:
                gadget.stacks.take()

    def _ship(self, gadget: "_Shipped") -> int:
        batch = gadget.ring.batch()
        length = len(batch)
        now = time.monotonic_ns()
        silent = now - self._last_sent[gadget.index] < _SAY_COMPLETE_NS
        if not length and silent and not self._last_bytes[gadget.index]:
            return 0
        head = EventsHeader(gadget.index, gadget.sequence, gadget.ring.complete_until).encode()
        self._pipe.put_ring(header(FrameType.EVENTS, _EVENTS_HEAD + length) + head, batch, gadget.ring)
        gadget.sequence += 1
        self._last_sent[gadget.index] = now
        self._last_bytes[gadget.index] = length
        return length

    def _ship_answer(self, gadget: "_Shipped", answer: Answer) -> None:
        for piece in answer.ship():
            head = EventsHeader(gadget.index, gadget.sequence, piece.complete_until, piece.flags, piece.interval)
            self._pipe.put(encode(FrameType.EVENTS, head.encode() + piece.records))
            gadget.sequence += 1
        while answer.warnings:
            self._pipe.put(encode_json(FrameType.WARNING, {"message": answer.warnings.pop()}))

    def _send_removed(self) -> None:
        """What was seen as removed in the turn before: all its events have been shipped by now."""
        if self._removed:
            self._pipe.put(
                encode_json(FrameType.CONTAINERS, {"containers": [], "cgroups": {}, "removed": self._removed})
            )
        self._removed = self._containers.take_removed()
        for gadget in self._gadgets:
            if gadget.answer and self._removed:
                gadget.answer.removed(self._removed)
