"""Frames that were received and not yet decoded, between the event loop and the pipeline's thread.

The loop reads at full speed, so that a burst that the terminal cannot keep up with is delayed, not lost. The trap: the
limit counts bytes, not frames. When it is reached the reader waits, the stream fills up, and the node's ring buffer
drops events and counts them.
"""

import asyncio
import threading
import time
from collections import Counter, deque
from typing import NamedTuple

from kubectl_gadget.run.nodes.coverage import Gap
from kubectl_gadget.wire.agent_messages import ContainerChanges, Hello, StackNames, Started, Stats
from kubectl_gadget.wire.client_messages import FilterSpec
from kubectl_gadget.wire.frames import FrameType
from kubectl_gadget.wire.message import value_count

_PIECE = 4 << 20
_VALUE_BYTES = 100
"""of a value of JSON in memory; the smallest take the most"""
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
"""What a node has sent, and what the client itself adds about it. The latter cannot come from the wire."""


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
        self._bytes = 0
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
        """Whether an item of this size may be added now."""
        return not self._bytes or self._bytes + size <= self._limit

    def add(self, item: Item) -> None:
        """Adds a small item of the client's own, even when there is no room."""
        with self._condition:
            self._items.append(item)
            self._bytes += item.size
            self.received += item.size
            self._condition.notify()

    def take(self, timeout: float) -> list[Item] | None:
        """Returns everything queued, about 4 MiB at most; [] after `timeout` seconds; None at the end. For one
        thread."""
        # A read costs as much for one frame as for a hundred, and each one delays the loop that receives them. The loop
        # gets half of the interpreter, or it would never open the streams of a thousand nodes of which some send.
        pause = self._next_look - time.monotonic()
        if self._worked_from is not None:
            pause = max(pause, min(max(time.thread_time() - self._worked_from, _LEAST_PAUSE), _MOST_PAUSE))
        time.sleep(max(0.0, pause))
        self._pay()
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
        """Limit the thread's work to this much CPU time from now on, so that a run ends whatever nodes send. After half
        of it, nodes that have more than their share of the queue are discarded: they cost the others nothing. After all
        of it, everything is. Time in which the reader of the output keeps the thread waiting does not count."""
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
