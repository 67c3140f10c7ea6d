"""Sums that BPF programs keep, taken at each interval without losing an increment (bpf/include/gadget/totals.h).

Two hashes take turns in the one entry of the map `gadget_totals`. Putting the empty one there is what makes the taking
exact: the kernel returns from it when no program can still be adding to the other.
"""

import ctypes
import math
import struct
import time
from collections.abc import Iterator

from kubectl_gadget.agent import libbpf
from kubectl_gadget.agent.answer import Answer
from kubectl_gadget.agent.map_batches import take_all
from kubectl_gadget.agent.object import BpfMap, BpfObject
from kubectl_gadget.errors import AgentError

_HEAD = struct.Struct("<IIQQ")
"""The ring buffer's header, and struct gadget_total."""


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
        for keys, values in take_all(full):
            yield b"".join(head + key + value + tail for key, value in zip(keys, values, strict=True))
