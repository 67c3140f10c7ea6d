"""Joins EVENTS frames that wait one after the other, since two events in a frame cost the client as much as hundreds.

So the more there is to catch up with, the cheaper it gets: a thousand nodes with small frames are else more than a core
can take. The trap: a frame that tells containers or stacks stands before the events that need it, so nothing moves past
it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kubectl_gadget.session.nodes.backlog import Events, Item
from kubectl_gadget.wire import EventsHeader, split_events


def coalesced(items: Iterable[Item]) -> Iterator[Item]:
    """The same events in as few frames as possible; in order for each node, but not between nodes."""
    waiting: dict[str, _Waiting] = {}
    for item in items:
        found = _read(item)
        before = waiting.get(item.node)
        if before is not None and found is not None and before.head.gadget == found.head.gadget:
            before.head = found.head
            before.parts += found.parts
            continue
        if before is not None:
            del waiting[item.node]
            yield before.joined()
        if found is None:
            yield item
        else:
            waiting[item.node] = found
    for left in waiting.values():
        yield left.joined()


@dataclass(slots=True)
class _Waiting:
    """Frames of one node and one gadget."""

    first: Item
    head: EventsHeader
    """of the last one"""
    parts: list[memoryview]

    def joined(self) -> Item:
        if len(self.parts) == 1:
            return self.first
        return Item(self.first.node, Events(b"".join([self.head.encode(), *self.parts])))


def _read(item: Item) -> _Waiting | None:
    """Of a stream: parts of totals and snapshots are whole by themselves. What is too short its reader refuses."""
    if not isinstance(item.content, Events) or len(item.content.payload) < _HEAD:
        return None
    head, data = split_events(item.content.payload)
    return None if head.flags else _Waiting(item, head, [data])


_HEAD = len(EventsHeader(0, 0, 0).encode())
