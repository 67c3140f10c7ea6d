"""Writes frames without ever blocking and without copying events: they are written straight from the mapped ring.

The trap: bytes in the ring must not be given back to the kernel before they are written, so the ring's position moves
with each write. With a slow reader the ring fills up and the kernel counts losses; no queue grows here.
"""

import os
from collections import deque
from typing import Protocol

_MOST_PIECES = 64
"""Pieces per writev(); IOV_MAX is 1024."""


class WrittenRing(Protocol):
    """A ring whose bytes are written."""

    def advance(self, count: int) -> None:
        """Called when `count` bytes were written."""


class FramePipe:
    """Writes to the non-blocking file descriptor `fd`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._queue: deque[tuple[memoryview, WrittenRing | None]] = deque()
        self._owed = 0
        self.closed = False
        """The reader is gone; all further output is discarded."""

    @property
    def blocked(self) -> bool:
        """Whether output waits for the reader."""
        return bool(self._queue)

    @property
    def queued(self) -> int:
        """Number of pieces that wait."""
        return len(self._queue)

    def put(self, frame: bytes) -> None:
        """Queues a whole frame."""
        self._queue.append((memoryview(frame), None))

    def put_ring(self, head: bytes, batch: memoryview, ring: WrittenRing) -> None:
        """Queues a frame's head, with the ring's bytes as its rest. The pipe advances `ring` while it writes."""
        self.put(head)
        if batch:
            self._queue.append((batch, ring))

    def flush(self) -> None:
        """Writes as much as the reader takes now."""
        while self._queue and not self.closed:
            pieces = [piece for piece, _ in list(self._queue)[:_MOST_PIECES]]
            try:
                written = os.writev(self._fd, pieces)
            except BlockingIOError:
                return
            except (BrokenPipeError, ConnectionResetError):
                self.discard()
                self.closed = True
                return
            self._take(written)

    def discard(self) -> None:
        """Drops all queued output."""
        for piece, _ in self._queue:
            piece.release()
        self._queue.clear()

    def _take(self, written: int) -> None:
        while written:
            piece, ring = self._queue.popleft()
            taken = min(written, len(piece))
            written -= taken
            if taken < len(piece):
                self._queue.appendleft((piece[taken:], ring))
            piece.release()
            if ring is not None:
                self._give_back(ring, taken)

    def _give_back(self, ring: WrittenRing, taken: int) -> None:
        # A pipe takes any number of bytes, while the ring's position is a multiple of 8. Batches are multiples of 8 as
        # well, so the remainder always belongs to the first batch in the queue.
        self._owed += taken
        whole = self._owed & ~7
        self._owed -= whole
        if whole:
            ring.advance(whole)
