"""Frames that were received and not yet decoded, between the event loop and the pipeline's thread.

The loop reads at full speed, so that a burst that the terminal cannot keep up with is delayed, not lost. The limit
counts bytes, not frames. When it is reached the reader waits, the stream fills up, and the node's ring buffer drops
events and counts them.
"""

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from kubectl_gadget.python_process import give_memory_back
from kubectl_gadget.run.coverage import Gap
from kubectl_gadget.wire.agent_messages import ContainerChanges, Hello, StackNames, Started, Stats
from kubectl_gadget.wire.client_messages import FilterSpec
from kubectl_gadget.wire.frames import EventsHeader, FrameType, gadget_of_stream, joined_streams, split_events
from kubectl_gadget.wire.message import value_count

_PIECE = 4 << 20
_VALUE_BYTES = 100
"""of a value of JSON in memory; the smallest take the most"""
_FLOOD = 64 << 20
"""Bytes that waited at once; after them, freed memory is given back"""
_LOOK_SECONDS = 0.005
"""Shortest time between two reads, unless more is queued than one read takes."""
_MANY_FRAMES, _LEAST_PAUSE, _MOST_PAUSE = 50, 0.05, 1.0
"""When one read gave this many frames, the thread pauses before the next one: as long as it worked on them, within
these limits. Each read costs 2 ms, like 60 more frames, so few large ones cost less than many small ones."""


class Events(NamedTuple):
    """An EVENTS frame, as received."""

    payload: bytes


class RoundTrip(NamedTuple):
    """A PONG with the client's own wall times, for the clock estimate. All times in ns."""

    sent_ns: int
    received_ns: int
    boot_ns: int
    realtime_ns: int


class Selected(NamedTuple):
    """FILTER of this node from here on. Queued among the node's frames, so that a replay selects as the run did."""

    filter: FilterSpec


class Detached(NamedTuple):
    """A connection of this node has ended, so the pipeline no longer waits for it."""


class StepMark(NamedTuple):
    """A step of a CI job begins. It is of no node."""

    name: str
    wall_ns: int
    """when the mark was received, in the clock that the times of rows are corrected to"""


Content = (
    Events | Hello | Started | ContainerChanges | StackNames | Stats | RoundTrip | Gap | Selected | Detached | StepMark
)
"""Data that a node has sent, and data that the client itself adds about it, which cannot come from the wire."""


class Item(NamedTuple):
    """One item of one node. `node` is the node session's key, `size` the memory that it takes in bytes (memory_of)."""

    node: str
    content: Content
    size: int = 0


def memory_of(type: int, payload: bytes) -> int:
    """Return about how many bytes of memory the content of a frame takes. Values of JSON take far more than in the
    frame."""
    return len(payload) + (0 if type == FrameType.EVENTS else _VALUE_BYTES * value_count(payload))


class Backlog:
    """A queue with one reader thread and a limit in bytes. Create it in the event loop that fills it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._condition = threading.Condition()
        self._items: deque[Item] = deque()
        self._bytes = self._most = 0
        self.received = 0
        """bytes since the start"""
        self.left_out: Counter[str] = Counter()
        """bytes by node that were discarded at the end; complete when `take` has returned None"""
        self._closed = False
        self._end_work: float | None = None
        """CPU seconds that the thread may still spend; None: the run goes on"""
        self._fair_work = 0.0
        """the part of them that it spends before nodes that sent more than their share are discarded"""
        self._worked = 0.0
        """its CPU time at the last `take`"""
        self._next_look = 0.0
        self._worked_from: float | None = None
        """the thread's CPU time after its last read; None: that read does not call for a pause"""

    async def put(self, item: Item) -> None:
        """Adds an item. Waits while there is no room, unless the queue is empty."""
        while not self.has_room(item.size):
            self._room.clear()
            await self._room.wait()
        self.add(item)

    def has_room(self, size: int) -> bool:
        """True if an item of this size may be added now."""
        return not self._bytes or self._bytes + size <= self._limit

    def add(self, item: Item) -> None:
        """Adds a small item of the client's own, even when there is no room."""
        with self._condition:
            self._items.append(item)
            self._bytes += item.size
            self._most = max(self._most, self._bytes)
            self.received += item.size
            self._condition.notify()

    def take(self, timeout: float) -> list[Item] | None:
        """Returns everything queued, about 4 MiB at most; [] after `timeout` seconds; None at the end. For one
        thread."""
        # A read costs as much for one frame as for a hundred, and each one delays the loop that receives them. The loop
        # gets half of the interpreter, or it would never open the streams of a thousand nodes while some of them send.
        pause = self._next_look - time.monotonic()
        if self._worked_from is not None:
            pause = max(pause, min(max(time.thread_time() - self._worked_from, _LEAST_PAUSE), _MOST_PAUSE))
        time.sleep(max(0.0, pause))
        self._pay()
        if self._most > _FLOOD and not self._bytes:
            self._most = 0
            give_memory_back()
        with self._condition:
            if not self._items and not self._closed:
                self._condition.wait(timeout)
            taken: list[Item] = []
            size = 0
            while self._items and size < _PIECE:
                item = self._items.popleft()
                size += item.size
                taken.append(item)
            self._bytes -= size
            self._next_look = time.monotonic() + _LOOK_SECONDS if size < _PIECE else 0.0
            is_piecemeal = len(taken) >= _MANY_FRAMES and size < _PIECE
            self._worked_from = time.thread_time() if is_piecemeal else None
            ended = self._closed and not taken
        if size:
            self._wake()
        return None if ended else taken

    def end_within(self, seconds: float) -> None:
        """Limit the thread's further work to this much CPU time, so that a run ends whatever nodes send. After half of
        it, nodes that have more than their share of the queue are discarded: they cost the others nothing. After all of
        it, everything is discarded. Time in which the reader of the output keeps the thread waiting does not count."""
        with self._condition:
            if self._end_work is None:
                self._end_work, self._fair_work = seconds, seconds / 2
            self._condition.notify()

    def _pay(self) -> None:
        """Subtract the CPU time of the thread, and discard items when half or all of it is spent."""
        worked, before = time.thread_time(), self._worked
        self._worked = worked
        with self._condition:
            if self._end_work is None:
                return
            self._end_work -= worked - before
            if self._end_work <= 0:
                self._discard(frozenset(item.node for item in self._items))
            elif self._end_work <= self._fair_work:
                self._fair_work = 0.0
                sizes = Counter[str]()
                for item in self._items:
                    sizes[item.node] += item.size
                share = self._bytes / max(1, len(sizes))
                if len(sizes) > 1:
                    self._discard(frozenset(node for node, size in sizes.items() if size > share))
        self._wake()

    def _discard(self, nodes: frozenset[str]) -> None:
        """Discard what these nodes have sent, but not what the client itself has added."""
        kept = deque[Item]()
        for item in self._items:
            if item.size and item.node in nodes:
                self.left_out[item.node] += item.size
                self._bytes -= item.size
            else:
                kept.append(item)
        self._items = kept

    def close(self) -> None:
        """Ends the queue. Items in it can still be taken."""
        with self._condition:
            self._closed = True
            self._condition.notify()

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._room.set)
        except RuntimeError:
            if not self._loop.is_closed():
                raise


# Joining of consecutive EVENTS frames: one of two events costs the client as much as one of hundreds. So the cost
# per event falls as the backlog grows; otherwise a thousand nodes with small frames need more than one core.
# Frames of one node become one; small ones of several nodes are only found here, and then decoded together. A
# frame that announces containers or stacks precedes the events that need it, so no event may move past it.


_MOST_JOINED = 8 << 10
"""The most bytes of a frame that is decoded together with other nodes' frames."""


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


# Where the pipeline's frames come from: a live run's backlog is one source, a recording is another. All nodes'
# frames come from one source, so a CONTAINERS frame is seen before the events that need it. Everything that
# depends on time or on another thread must be part of a step (the time, the frames, selections), or a replay of
# the same steps gives other rows than the run did.

_IDLE_SECONDS = 0.25
"""A step is taken at least this often, so that rows that wait are checked again."""
_MOST_NS = 500_000_000
"""The most that passes between two calls of RunningTime. Callers that call at least this often see real time."""


class Intake(NamedTuple):
    """The items that the pipeline takes at a time: a step of the pipeline, which recordings keep."""

    items: Sequence[Item]
    now_ns: int
    """when it was taken; only differences are meaningful"""


class FrameSource(Protocol):
    """Delivers steps to the pipeline's thread."""

    def take(self, due_ns: int | None) -> Intake | None:
        """Returns the next step, at `due_ns` at the latest, even without items; None at the end."""

    def drain(self) -> None:
        """Discards further frames after the pipeline has ended, so that their senders do not block."""


class RunningTime:
    """A clock that stops while this process does not run: stopped (Ctrl-Z), asleep, or blocked in a write. Call it for
    nanoseconds; only differences between them are meaningful.

    Rows wait a bounded time for other nodes' rows. After a pause this time would be over for all of them, before
    anything that came during the pause was read. So between two distant calls this clock advances only a little.
    """

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._last = clock()
        self._passed = 0

    def __call__(self) -> int:
        now = self._clock()
        self._passed += min(now - self._last, _MOST_NS)
        self._last = now
        return self._passed


class LiveFrames:
    """The frames of a run's nodes, as they come."""

    def __init__(self, backlog: Backlog, clock: Callable[[], int] | None = None) -> None:
        self._backlog = backlog
        self._clock = clock or RunningTime()

    def take(self, due_ns: int | None) -> Intake | None:
        """See FrameSource."""
        wait = _IDLE_SECONDS if due_ns is None else min(_IDLE_SECONDS, max(0.0, (due_ns - self._clock()) / 1e9))
        items = self._backlog.take(wait)
        return None if items is None else Intake(list(coalesced(items)), self._clock())

    def drain(self) -> None:
        """See FrameSource."""
        while self._backlog.take(1.0) is not None:
            pass
