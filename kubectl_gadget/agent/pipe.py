"""Writes frames without ever blocking and without copying events: they are written straight from the mapped ring.

The trap: the kernel may overwrite bytes in the ring as soon as the ring's position has moved past them, so it moves
only as they are written or copied. What a slow reader does not take is copied, up to a limit; beyond that the ring
fills up, and programs count losses.
"""

import os
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Protocol

_MOST_PIECES = 64
"""Pieces per writev(); IOV_MAX is 1024."""
_RINGS = 64
"""Limit on the bytes that are held while the reader is slow, as a multiple of the ring's size."""
MOST_HELD = 64 << 20
"""The same limit in bytes."""
_PIECE_BYTES = 400
"""Memory that a piece takes in addition to its bytes; at a low rate, that is most of it."""


class WrittenRing(Protocol):
    """A ring whose bytes are written."""

    size: int
    """in bytes"""

    def advance(self, count: int) -> None:
        """Called when `count` bytes were written."""


class FramePipe:
    """Writes to the non-blocking file descriptor `fd`, and holds at most `most` bytes that it does not take, and
    fewer while memory `is_scarce`: several sessions of a pod may hold some."""

    def __init__(self, fd: int, most: int = MOST_HELD, is_scarce: Callable[[], bool] = lambda: False) -> None:
        self._fd = fd
        self._most = most
        self._is_scarce = is_scarce
        self._queue: deque[tuple[memoryview, WrittenRing | None]] = deque()
        self._owed = 0
        self._held = self._room = 0
        self._in_rings = 0
        """number of pieces whose bytes are still in rings; they are the last ones of each ring"""
        self.written = 0
        """bytes since the start"""
        self.closed = False
        """The reader is gone; all further output is discarded."""

    @property
    def blocked(self) -> bool:
        """True if output waits for the reader."""
        return bool(self._queue)

    @property
    def full(self) -> bool:
        """True if the reader is too far behind for more output."""
        return self._held + _PIECE_BYTES * len(self._queue) > self._room

    @property
    def queued(self) -> int:
        """Number of pieces that wait for the reader."""
        return len(self._queue)

    def put(self, frame: bytes) -> None:
        """Queues a whole frame."""
        self._queue.append((memoryview(frame), None))
        self._held += len(frame)

    def put_ring(self, head: bytes, batch: memoryview, ring: WrittenRing) -> None:
        """Queues a frame's head, with the ring's bytes as its rest. The pipe advances `ring` while it writes."""
        self.put(head)
        self._room = max(self._room, min(_RINGS * ring.size, self._most))
        if batch:
            self._queue.append((batch, ring))
            self._in_rings += 1
            self._held += len(batch)

    def flush(self) -> None:
        """Writes as much as the reader takes now."""
        while self._queue and not self.closed:
            pieces = [piece for piece, _ in islice(self._queue, _MOST_PIECES)]
            try:
                written = os.writev(self._fd, pieces)
            except BlockingIOError:
                self._empty_rings()
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
        self._held = self._in_rings = 0

    def _empty_rings(self) -> None:
        """Copies pieces that are still in rings, so that programs can write there again."""
        if self._in_rings and self._is_scarce():
            self._room = 0  # until everything is written
        place = len(self._queue)
        while self._in_rings:
            place -= 1
            piece, ring = self._queue[place]
            if ring is not None:
                self._queue[place] = memoryview(bytes(piece)), None
                self._in_rings -= 1
                length = len(piece)
                piece.release()
                self._give_back(ring, length)

    def _take(self, written: int) -> None:
        self.written += written
        self._held -= written
        while written:
            piece, ring = self._queue.popleft()
            taken = min(written, len(piece))
            written -= taken
            if taken < len(piece):
                self._queue.appendleft((piece[taken:], ring))
            elif ring is not None:
                self._in_rings -= 1
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
