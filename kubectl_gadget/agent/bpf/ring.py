"""Reads a BPF ring buffer in batches, without parsing single records (docs/design/reading.md).

Both readers return bytes as the kernel wrote them. `settle()` finds the position up to which all records are committed,
`batch()` returns the bytes before it, and `advance()` gives them back to the kernel. The trap: positions are single
aligned 8-byte accesses, and the result is correct only with this order of reads: time, counters, position, counters.
"""

import ctypes
import mmap
import os
import struct
import time
from collections.abc import Iterator

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.bpf.maps import CpuCounters

_RECORD = struct.Struct("<II")
"""Length and page offset, before each record; records are padded to multiples of 8 bytes."""
_DISCARDED = 1 << 30
"""BPF_RINGBUF_DISCARD_BIT of the length."""
_CHECKS = 2000
"""The number of checks of busy CPUs before this turn gives up. A program takes about a microsecond."""

_CLOCK_MARGIN_NS = 10_000
"""The kernel's clock for BPF may lag by this much while the timekeeper is updated (ktime_get_mono_fast_ns)."""
_ORDER_MARGIN_NS = 10_000_000
"""Without ordered stores, a record stamped before the check may be reserved after it, but hardly by this much."""


class MappedRing:
    """The ring `fd` of `size` bytes, mapped. It relies on x86's ordered stores."""

    def __init__(self, fd: int, size: int, counters: CpuCounters) -> None:
        page = mmap.PAGESIZE
        self.size = size
        self._counters = counters
        self._mask = size - 1
        self._maps = [
            mmap.mmap(fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE),
            mmap.mmap(fd, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page),
        ]
        self._consumer = memoryview(self._maps[0]).cast("Q")
        mapped = memoryview(self._maps[1])
        self._producer = mapped[:page].cast("Q")
        self._data = mapped[page:]
        self._views = [self._consumer, self._producer, self._data, mapped]
        self._position = self._consumer[0]
        self._end = self._position
        self.complete_until = 0
        """Boot time in ns: every event stamped before it is before the position that settle() found."""

    @property
    def position(self) -> int:
        """Position of batch()'s first byte, in bytes since the ring was created."""
        return self._position

    def settle(self) -> bool:
        """Finds the position up to which all records are committed. Returns False, and changes nothing, when a CPU
        stayed busy."""
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        # First round: what was in flight at `now` has reserved its space. Second: all space before `end` is committed.
        if not self._wait_until_idle():
            return False
        end = self._producer[0]
        if not self._wait_until_idle():
            return False
        self._end = end
        self.complete_until = now - _CLOCK_MARGIN_NS
        return True

    def _wait_until_idle(self) -> bool:
        """Waits until each CPU was seen without a record in flight. Returns False when one stayed busy."""
        busy = self._counters.busy()
        for check in range(_CHECKS):
            if not busy:
                return True
            if check & 15 == 15:
                os.sched_yield()  # the program may have been preempted on this very CPU
            busy = self._counters.busy(busy)
        return not busy

    @property
    def is_quiet(self) -> bool:
        """True if nothing was written since settle(), and everything before was given back. Makes no system call."""
        return bool(self._producer[0] == self._end == self._position)

    def batch(self) -> memoryview:
        """Returns the bytes from the last advance() to the settled position, in place. Release it before close()."""
        start = self._position & self._mask
        return self._data[start : start + self._end - self._position]

    def advance(self, count: int) -> None:
        """Gives the next `count` bytes, a multiple of 8, back to the kernel, which may overwrite them immediately."""
        self._position += count
        self._consumer[0] = self._position

    def close(self) -> None:
        for view in self._views:
            view.release()
        for memory in self._maps:
            memory.close()


class CopiedRing:
    """Reads through libbpf's own consumer, with one call and one copy per record: for arm64, and to test MappedRing.

    Discarded records are left out. At most `most` bytes are held.
    """

    def __init__(self, fd: int, size: int, counters: CpuCounters, most: int = 1 << 20) -> None:
        self._lib = libbpf.load()
        self.size = size
        self._most = most
        self._bytes = bytearray()
        self._start = 0
        self._callback = libbpf.RING_SAMPLE(self._sample)
        self._ring = self._lib.call("ring_buffer__new", fd, self._callback, None, None)
        self._memory = mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ, offset=mmap.PAGESIZE)
        self._consumed = mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ)
        self._before = 0
        self.complete_until = 0

    @property
    def position(self) -> int:
        """Position of batch()'s first byte, counted from the first byte that was read."""
        return self._before + self._start

    def settle(self) -> bool:
        """Like MappedRing.settle(). Reads nothing while bytes of an earlier read are left."""
        if self._start < len(self._bytes):
            return True
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._before += len(self._bytes)
        self._bytes = bytearray()
        self._start = 0
        end = self._read(self._memory)
        for _ in range(_CHECKS):
            # A negative result only means that _sample stopped the read, or that nothing was there.
            self._lib.raw("ring_buffer__consume", self._ring)
            if self._read(self._consumed) >= end:
                self.complete_until = now - _ORDER_MARGIN_NS
                return True
            if len(self._bytes) >= self._most:
                return True
        return False

    @property
    def is_quiet(self) -> bool:
        """Like MappedRing.is_quiet."""
        return self._start >= len(self._bytes) and self._read(self._memory) == self._read(self._consumed)

    @staticmethod
    def _read(page: mmap.mmap) -> int:
        with memoryview(page) as view, view.cast("Q") as words:
            return words[0]

    def _sample(self, _: object, data: int, size: int) -> int:
        self._bytes += _RECORD.pack(size, 0) + ctypes.string_at(data, size) + bytes(-size % 8)
        return -1 if len(self._bytes) >= self._most else 0

    def batch(self) -> memoryview:
        return memoryview(self._bytes)[self._start :]

    def advance(self, count: int) -> None:
        self._start += count

    def close(self) -> None:
        ring, self._ring = self._ring, None
        if ring:
            self._lib.raw("ring_buffer__free", ring)
        self._memory.close()
        self._consumed.close()


Ring = MappedRing | CopiedRing


def framed(record: bytes | bytearray) -> bytes:
    """Returns a record as it is in a ring buffer."""
    return _RECORD.pack(len(record), 0) + record + bytes(-len(record) % 8)


def records(ring: bytes | memoryview) -> Iterator[bytes]:
    """Yields the records in bytes of a ring buffer."""
    offset = 0
    while offset < len(ring):
        length, _ = _RECORD.unpack_from(ring, offset)
        start = offset + _RECORD.size
        size = length & (_DISCARDED - 1)
        if not length & _DISCARDED:
            yield bytes(ring[start : start + size])
        offset = start + (size + 7) // 8 * 8


def whole_records(ring: bytes | memoryview, most: int) -> int:
    """Returns the size in bytes of the first whole records within `most` bytes; at least the first one's size."""
    offset = 0
    while offset < len(ring):
        length, _ = _RECORD.unpack_from(ring, offset)
        end = offset + _RECORD.size + ((length & (_DISCARDED - 1)) + 7) // 8 * 8
        if offset and end > most:
            break
        offset = end
    return offset


def open_ring(fd: int, size: int, counters: CpuCounters) -> Ring:
    """Returns the reader for this machine."""
    reader = MappedRing if os.uname().machine == "x86_64" else CopiedRing
    return reader(fd, size, counters)
