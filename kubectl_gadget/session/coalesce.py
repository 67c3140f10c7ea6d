"""Joins EVENTS frames that wait behind each other, since two events in a frame cost the client as much as hundreds.

So the more there is to catch up with, the cheaper it gets: a thousand nodes with small frames are else more than a core
can take. The trap: a frame that tells containers or stacks stands before the events that need it, so nothing moves past
it.
"""

from collections.abc import Iterable, Iterator

from kubectl_gadget.session.backlog import Item
from kubectl_gadget.wire import EventsHeader, Frame, FrameType, split_events


def coalesced(items: Iterable[Item]) -> Iterator[Item]:
    """The same events in as few frames as possible; in order for each node, but not between nodes."""
    waiting: dict[str, list[Item]] = {}
    for item in items:
        before = waiting.get(item.node)
        if item.frame.type == FrameType.EVENTS and _alike(before, item):
            waiting.setdefault(item.node, []).append(item)
            continue
        yield from _joined(waiting.pop(item.node, []))
        if item.frame.type == FrameType.EVENTS and _plain(item):
            waiting[item.node] = [item]
        else:
            yield item
    for found in waiting.values():
        yield from _joined(found)


def _plain(item: Item) -> bool:
    """Of a stream: parts of totals and snapshots are whole by themselves. What is too short its reader refuses."""
    return len(item.frame.payload) >= _HEAD and split_events(item.frame.payload)[0].flags == 0


def _alike(before: list[Item] | None, item: Item) -> bool:
    if not before or not _plain(item):
        return False
    return split_events(before[0].frame.payload)[0].gadget == split_events(item.frame.payload)[0].gadget


def _joined(found: list[Item]) -> Iterator[Item]:
    if len(found) < 2:
        yield from found
        return
    parts = [split_events(item.frame.payload) for item in found]
    payload = b"".join([parts[-1][0].encode(), *(data for _, data in parts)])
    yield Item(found[0].node, Frame(FrameType.EVENTS, payload))


_HEAD = len(EventsHeader(0, 0, 0).encode())
