"""Frames out, without ever blocking and without copying events: they are written straight from the mapped ring.

The trap: what is written from the ring must not be given back to the kernel before the write took it, so the ring's
position moves with each write. A reader that is slow makes the ring fill up, and the kernel count; nothing grows here.
"""

import os
from collections import deque
from typing import Protocol

_MOST_PIECES = 64
"""Pieces per writev(); IOV_MAX is 1024."""


class WrittenRing(Protocol):
    """Whose bytes are written: a ring."""

    def advance(self, count: int) -> None:
        """So many bytes are written."""


class FramePipe:
    """Writes to the non-blocking file descriptor `fd`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._queue: deque[tuple[memoryview, WrittenRing | None]] = deque()
        self._owed = 0
        self.closed = False
        """The reader has gone; everything is thrown away from now on."""

    @property
    def blocked(self) -> bool:
        """Something waits for the reader."""
        return bool(self._queue)

    @property
    def queued(self) -> int:
        """Pieces that wait."""
        return len(self._queue)

    def put(self, frame: bytes) -> None:
        """Queues a whole frame."""
        self._queue.append((memoryview(frame), None))

    def put_ring(self, head: bytes, batch: memoryview, ring: WrittenRing) -> None:
        """Queues a frame's head and the ring's bytes as its rest. The pipe advances `ring` while it writes."""
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
        """Forgets what waits."""
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
        # A pipe takes any number of bytes, the ring's position is a multiple of 8. A batch is one too, so what is owed
        # is always to the ring whose batch is in front.
        self._owed += taken
        whole = self._owed & ~7
        self._owed -= whole
        if whole:
            ring.advance(whole)
