"""Joins consecutive EVENTS frames: one of two events costs the client as much as one of hundreds.

So the cost per event falls as the backlog grows; otherwise a thousand nodes with small frames need more than one core.
Frames of one node become one; small ones of several nodes are only found here, and then decoded together. The trap: a
frame that announces containers or stacks precedes the events that need it, so no event may move past it.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from kubectl_gadget.session.nodes.backlog import Events, Item, StepMark
from kubectl_gadget.session.nodes.coverage import Gap
from kubectl_gadget.wire.frames import EventsHeader, split_events

_MOST_JOINED = 8 << 10
"""Bytes of a frame that is decoded together with those of other nodes."""


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


class SmallFrame(NamedTuple):
    """An EVENTS frame of a stream, so small that looking at each of its rows costs less than at columns."""

    item: Item
    head: EventsHeader
    data: memoryview


def together(items: Iterable[Item], can_join: Callable[[str, int], bool]) -> Iterator[Item | list[SmallFrame]]:
    """Yields the same items, and small frames of one gadget on several nodes as lists. Order is kept for each node,
    except between its gadgets."""
    groups: dict[int, dict[str, SmallFrame]] = {}
    for item in items:
        found = _read(item)
        small = (
            None if found is None or len(found.parts[0]) > _MOST_JOINED else SmallFrame(item, found.head, *found.parts)
        )
        if small is None or not can_join(item.node, small.head.gadget):
            if isinstance(item.content, Gap | StepMark) or any(item.node in group for group in groups.values()):
                yield from map(list, map(dict.values, groups.values()))
                groups.clear()
            yield item
        else:
            group = groups.setdefault(small.head.gadget, {})
            if item.node in group:
                yield [*group.values()]
                group.clear()
            group[item.node] = small
    yield from map(list, map(dict.values, groups.values()))


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
