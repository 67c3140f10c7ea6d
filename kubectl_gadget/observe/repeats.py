"""Sums up what a program repeats on the network: connections to the same place, and questions for the same name.

The first is shown as it happens. Those that follow it are one event with their number and bytes. It comes before the
first event of any program ten seconds later, and at the end of the process or of the run.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from kubectl_gadget.observe.happening import ConnectionEvent, ProcessEvent
from kubectl_gadget.observe.story import StoryEvent

SECONDS = 10
"""between two sums"""
_MOST = 20_000
"""of programs and places that are remembered; the program that was silent for longest is forgotten"""

Key = tuple[Any, ...]


def summed(event: ConnectionEvent) -> ConnectionEvent:
    """Return the event without what differs in each connection or answer: the client's port, bytes, addresses."""
    return replace(
        event, source=(event.source[0], 0), sent=None, received=None, duration=None, answers=(), flow_id="", tid=0
    )


@dataclass
class _Repeated:
    """The events that followed the first one of a kind."""

    last: StoryEvent | None = None
    since: int = 0
    """time of the first one that is not shown, in ns"""
    count: int = 0
    sent: int = 0
    received: int = 0

    def add(self, entry: StoryEvent, event: ConnectionEvent) -> None:
        self.since = self.since if self.last else entry.time
        self.last = entry
        self.count += 1
        self.sent += event.sent or 0
        self.received += event.received or 0

    def take(self) -> Iterator[StoryEvent]:
        """Yield the event that stands for them, if there are any."""
        if self.last is None:
            return
        entry, happening = self.last, self.last.happening
        if self.count > 1 and isinstance(happening, ConnectionEvent):
            sums = replace(summed(happening), count=self.count)
            if happening.sent is not None:
                sums = replace(sums, sent=self.sent, received=self.received)
            entry = replace(entry, happening=sums)
        self.last, self.count, self.sent, self.received = None, 0, 0, 0
        yield entry


class Repeats:
    """Takes events in their order and returns those to show."""

    def __init__(self) -> None:
        self._known: OrderedDict[Key, dict[ConnectionEvent, _Repeated]] = OrderedDict()
        """by program, so that its end finds its own; those last that last did something"""
        self._count = 0
        self._next = 0

    def add_all(self, entries: Iterable[StoryEvent]) -> Iterator[StoryEvent]:
        """Yield what can be shown now."""
        for entry in entries:
            if entry.time >= self._next:
                yield from self._due(entry.time)
            happening = entry.happening
            if isinstance(happening, ConnectionEvent):
                yield from self._add(entry, happening)
                continue
            if isinstance(happening, ProcessEvent) and happening.operation == "exit":
                yield from self._forget((entry.node, entry.process.id))
            yield entry

    def rest(self) -> Iterator[StoryEvent]:
        """Yield what was not shown."""
        for known in self._known.values():
            yield from _taken(known)

    def _add(self, entry: StoryEvent, event: ConnectionEvent) -> Iterator[StoryEvent]:
        program, what = (entry.node, entry.process.id), summed(event)
        known = self._known.setdefault(program, {})
        self._known.move_to_end(program)
        if (repeated := known.get(what)) is not None:
            repeated.add(entry, event)
            return
        known[what] = _Repeated()
        self._count += 1
        while self._count > _MOST:
            yield from self._forget(next(iter(self._known)))
        yield entry

    def _due(self, now: int) -> Iterator[StoryEvent]:
        self._next = now + 10**9
        for known in self._known.values():
            for repeated in known.values():
                if repeated.last is not None and now - repeated.since >= SECONDS * 10**9:
                    yield from repeated.take()

    def _forget(self, program: Key) -> Iterator[StoryEvent]:
        known = self._known.pop(program, {})
        self._count -= len(known)
        yield from _taken(known)


def _taken(known: dict[ConnectionEvent, _Repeated]) -> Iterator[StoryEvent]:
    for repeated in known.values():
        yield from repeated.take()
