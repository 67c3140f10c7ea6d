"""Frames that were read and not yet decoded, between the event loop and the pipeline's thread.

The loop reads at full speed, so that a burst that is faster than the terminal is late, not lost. The trap: the bound
counts bytes, not frames; when it is reached the reader waits, the stream fills up, and the node's ring buffer drops and
counts.
"""

import asyncio
import threading
import time
from collections import deque
from typing import NamedTuple

from kubectl_gadget.session.nodes.coverage import Gap
from kubectl_gadget.wire.agent_messages import ContainerChanges, Hello, StackNames, Started, Stats
from kubectl_gadget.wire.client_messages import FilterSpec

_PIECE = 4 << 20
_LOOK_SECONDS = 0.005
"""At least between two looks, unless more is waiting than one takes."""


class Events(NamedTuple):
    """An EVENTS frame, as it came."""

    payload: bytes


class RoundTrip(NamedTuple):
    """A PONG with the client's own wall times, for the clock estimate. All in ns."""

    sent_ns: int
    received_ns: int
    boot_ns: int
    realtime_ns: int


class Selected(NamedTuple):
    """FILTER of this node from here on. It stands among what the node sends, so a replay selects what the run did."""

    filter: FilterSpec


class Detached(NamedTuple):
    """A connection of this node has ended, so the pipeline waits no longer for it."""


Content = Events | Hello | Started | ContainerChanges | StackNames | Stats | RoundTrip | Gap | Selected | Detached
"""What a node has sent, and what the client itself says of it. No frame on the wire can stand for the latter."""


class Item(NamedTuple):
    """One of these of one node; `node` is the node session's key, `size` the bytes that the frame had."""

    node: str
    content: Content
    size: int = 0


class Backlog:
    """A queue with one reader thread, bounded in bytes. To be made in the event loop that feeds it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._condition = threading.Condition()
        self._items: deque[Item] = deque()
        self._bytes = 0
        self._closed = False
        self._next_look = 0.0

    @property
    def bytes(self) -> int:
        """What is held now, in bytes of payload."""
        return self._bytes

    async def put(self, item: Item) -> None:
        """Adds an item; waits while there is no room, except for the first."""
        size = item.size
        while self._bytes and self._bytes + size > self._limit:
            self._room.clear()
            await self._room.wait()
        self.add(item)

    def add(self, item: Item) -> None:
        """Adds something small of the client's own, also where there is no room."""
        with self._condition:
            self._items.append(item)
            self._bytes += item.size
            self._condition.notify()

    def take(self, timeout: float) -> list[Item] | None:
        """From the pipeline's thread: all that has come, at most 4 MiB; [] after `timeout` seconds; None at the end."""
        # A look costs as much for one frame as for a hundred, and each holds up the loop that reads them.
        time.sleep(max(0.0, self._next_look - time.monotonic()))
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
            ended = self._closed and not taken
        if size:
            self._wake()
        return None if ended else taken

    def close(self) -> None:
        """Nothing more will be put; what is held can still be taken."""
        with self._condition:
            self._closed = True
            self._condition.notify()

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._room.set)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
