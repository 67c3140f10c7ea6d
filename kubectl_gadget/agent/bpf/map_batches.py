"""Removes all entries from a BPF hash, many at a time.

The trap: when a batch is too small for one of the hash's buckets, the kernel refuses it with ENOSPC; it is retried with
more room.
"""

import ctypes
import errno
from collections.abc import Iterator
from typing import Any

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.maps import BpfMap

_BATCH = 1024


class Batches:
    """Takes the entries of one map, as often as needed. `room`: entries per system call at first. Needs Linux 5.6."""

    def __init__(self, map: BpfMap, room: int) -> None:
        self._fd = map.fd
        self._sizes = map.key_size, map.value_size
        # The kernel's position is as large as a key, and at least 4 bytes.
        self._places = [ctypes.create_string_buffer(max(4, map.key_size)) for _ in range(2)]
        self._make(room)

    def take(self) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """Yields keys and values of all entries, and removes them. Raises Failure."""
        lib = libbpf.load()
        position: Any = None
        end = False
        while not end:
            count = ctypes.c_uint32(self._room)
            arguments = (self._fd, position, self._places[0], *self._buffers, ctypes.byref(count), None)
            try:
                lib.call("bpf_map_lookup_and_delete_batch", *arguments)
            except Failure as failure:
                if failure.errno == errno.ENOSPC:
                    self._make(2 * self._room)
                    continue
                if failure.errno != errno.ENOENT:
                    raise
                end = True
            if count.value:
                keys, values = map(_split, self._buffers, self._sizes, (count.value,) * 2)
                yield keys, values
            position = self._places[0]
            self._places.reverse()

    def _make(self, room: int) -> None:
        self._room = room
        self._buffers = [ctypes.create_string_buffer(room * size) for size in self._sizes]


def _split(data: "ctypes.Array[ctypes.c_char]", size: int, count: int) -> list[bytes]:
    whole = memoryview(data)
    return [bytes(whole[start : start + size]) for start in range(0, count * size, size)]


def take_all(map: BpfMap) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Yields keys and values of all entries, once, and removes them. Raises Failure. Needs Linux 5.6."""
    return Batches(map, _BATCH).take()
