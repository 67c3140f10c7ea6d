"""Joins consecutive EVENTS frames: one of two events costs the client as much as one of hundreds.

So the cost per event falls as the backlog grows; otherwise a thousand nodes with small frames need more than one core.
Frames of one node become one; small ones of several nodes are only found here, and then decoded together. The trap: a
frame that announces containers or stacks precedes the events that need it, so no event may move past it.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from kubectl_gadget.run.nodes.backlog import Events, Item, StepMark
from kubectl_gadget.run.nodes.coverage import Gap
from kubectl_gadget.wire.frames import EventsHeader, gadget_of_stream, joined_streams, split_events

_MOST_JOINED = 8 << 10
"""Bytes of a frame that is decoded together with those of other nodes."""


def coalesced(items: Iterable[Item]) -> Iterator[Item]:
    """Yields the same events in as few frames as possible. Order is kept for each node, but not between nodes."""
    waiting: dict[str, tuple[int, Item, list[bytes]]] = {}
    """by node, frames of one gadget: its index, the first frame, and the payloads of all"""
    for item in items:
        content = item.content
        gadget = gadget_of_stream(content.payload) if isinstance(content, Events) else None
        before = waiting.get(item.node)
        if before is not None:
            if isinstance(content, Events) and gadget == before[0]:
                before[2].append(content.payload)
                continue
            del waiting[item.node]
            yield _one(before[1], before[2])
        if isinstance(content, Events) and gadget is not None:
            waiting[item.node] = gadget, item, [content.payload]
        else:
            yield item
    for _, first, payloads in waiting.values():
        yield _one(first, payloads)


def _one(first: Item, payloads: list[bytes]) -> Item:
    return first if len(payloads) == 1 else Item(first.node, Events(joined_streams(payloads)))


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
        node, content = item.node, item.content
        gadget = None
        if isinstance(content, Events) and len(content.payload) <= _MOST_JOINED:
            gadget = gadget_of_stream(content.payload)
        if gadget is None or not isinstance(content, Events) or not can_join(node, gadget):
            if isinstance(content, Gap | StepMark) or any(node in group for group in groups.values()):
                yield from map(list, map(dict.values, groups.values()))
                groups.clear()
            yield item
            continue
        group = groups.get(gadget)
        if group is None:
            group = groups[gadget] = {}
        elif node in group:
            yield [*group.values()]
            group.clear()
        group[node] = SmallFrame(item, *split_events(content.payload))
    yield from map(list, map(dict.values, groups.values()))
