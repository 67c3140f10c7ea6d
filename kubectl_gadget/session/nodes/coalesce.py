"""Joins consecutive EVENTS frames: one of two events costs the client as much as one of hundreds.

So the cost per event falls as the backlog grows; otherwise a thousand nodes with small frames need more than one core.
The trap: a frame that announces containers or stacks precedes the events that need it, so no event may move past it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kubectl_gadget.session.nodes.backlog import Events, Item
from kubectl_gadget.wire import EventsHeader, split_events


def coalesced(items: Iterable[Item]) -> Iterator[Item]:
    """Yields the same events in as few frames as possible. Order is kept for each node, but not between nodes."""
    waiting: dict[str, _Pending] = {}
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
class _Pending:
    """Waiting frames of one node and one gadget."""

    first: Item
    head: EventsHeader
    """of the last frame"""
    parts: list[memoryview]

    def joined(self) -> Item:
        if len(self.parts) == 1:
            return self.first
        return Item(self.first.node, Events(b"".join([self.head.encode(), *self.parts])))


def _read(item: Item) -> _Pending | None:
    """Reads a stream's frame. Parts of totals and snapshots are not joined. Frames that are too short are left to the
    decoder, which refuses them."""
    if not isinstance(item.content, Events) or len(item.content.payload) < _HEAD:
        return None
    head, data = split_events(item.content.payload)
    return None if head.flags else _Pending(item, head, [data])


_HEAD = len(EventsHeader(0, 0, 0).encode())
