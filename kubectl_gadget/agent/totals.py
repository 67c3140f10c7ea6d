"""Sums that BPF programs keep, taken at each interval without losing an increment (bpf/include/gadget/totals.h).

Two hashes take turns in the one entry of the map `gadget_totals`. Putting the empty one there is what makes the taking
exact: the kernel returns from it when no program can still be adding to the other. The trap: a batch that is too small
for one of the hash's buckets is refused with ENOSPC, and asked for again with more room.
"""

import ctypes
import math
import struct
import time
from collections.abc import Iterator
from typing import Any

from kubectl_gadget.agent import libbpf
from kubectl_gadget.agent.answer import Answer
from kubectl_gadget.agent.libbpf import Failure
from kubectl_gadget.agent.object import BpfMap, BpfObject
from kubectl_gadget.errors import AgentError

_HEAD = struct.Struct("<IIQQ")
"""The ring buffer's header, and struct gadget_total."""
_BATCH = 1024
_ENOENT, _ENOSPC = 2, 28


class Totals(Answer):
    """Of one object, taken each `interval` seconds. `record` is the size of the record in bytes."""

    def __init__(self, object: BpfObject, interval: float, record: int) -> None:
        now = time.monotonic()
        super().__init__(now + interval)
        self._lib = libbpf.load()
        outer = object.map("gadget_totals")
        halves = [object.map(f"gadget_totals_{half}") for half in "ab"]
        if outer is None or halves[0] is None or halves[1] is None:
            raise AgentError("the object has no totals", "use GADGET_TOTALS of gadget/totals.h")
        self._outer = outer.fd
        self._halves: list[BpfMap] = [half for half in halves if half is not None]
        self._counting = 0
        self._seconds = interval
        self._record = record
        self._sizes = self._halves[0].key_size, self._halves[0].value_size
        self._since = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._ended = False

    def end(self) -> None:
        self.due = 0.0
        self._ended = True

    def _next(self, now: float) -> float:
        if self._ended:
            return math.inf
        # What is behind is not made up for: each interval says how long it was.
        return max(self.due + self._seconds, now)

    def _take(self) -> Iterator[bytes]:
        full = self._halves[self._counting]
        self._counting ^= 1
        key, fd = ctypes.c_uint32(0), ctypes.c_uint32(self._halves[self._counting].fd)
        self._lib.call("bpf_map_update_elem", self._outer, ctypes.byref(key), ctypes.byref(fd), 0)
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        interval, self._since = now - self._since, now
        head = _HEAD.pack(self._record, 0, now, interval)
        tail = bytes(self._record + 8 - len(head) - sum(self._sizes)) + bytes(-self._record % 8)
        for keys, values in self._batches(full.fd):
            yield b"".join(head + key + value + tail for key, value in zip(keys, values, strict=True))

    def _batches(self, fd: int) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """All entries, which are removed."""
        key_size, value_size = self._sizes
        position: Any = None
        # As large as a key, and at least 4 bytes.
        places = [ctypes.create_string_buffer(max(4, key_size)) for _ in range(2)]
        room = _BATCH
        while True:
            keys = ctypes.create_string_buffer(room * key_size)
            values = ctypes.create_string_buffer(room * value_size)
            count = ctypes.c_uint32(room)
            arguments = (fd, position, places[0], keys, values, ctypes.byref(count), None)
            end = False
            try:
                self._lib.call("bpf_map_lookup_and_delete_batch", *arguments)
            except Failure as failure:
                if failure.errno == _ENOSPC:
                    room *= 2
                    continue
                if failure.errno != _ENOENT:
                    raise
                end = True
            found = count.value
            if found:
                yield _split(keys.raw, key_size, found), _split(values.raw, value_size, found)
            if end:
                return
            position = places[0]
            places.reverse()


def _split(data: bytes, size: int, count: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, count * size, size)]
