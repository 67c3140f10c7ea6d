"""Removes all entries from a BPF hash, many at a time.

The trap: when a batch is too small for one of the hash's buckets, the kernel refuses it with ENOSPC; it is retried with
more room.
"""

import ctypes
from collections.abc import Iterator
from typing import Any

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.maps import BpfMap

_BATCH = 1024
_ENOENT, _ENOSPC = 2, 28


def take_all(map: BpfMap, room: int = _BATCH) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Yields keys and values of all entries, and removes them. Raises Failure. Needs Linux 5.6."""
    lib, fd = libbpf.load(), map.fd
    key_size, value_size = map.key_size, map.value_size
    position: Any = None
    # The kernel's position is as large as a key, and at least 4 bytes.
    places = [ctypes.create_string_buffer(max(4, key_size)) for _ in range(2)]
    while True:
        keys = ctypes.create_string_buffer(room * key_size)
        values = ctypes.create_string_buffer(room * value_size)
        count = ctypes.c_uint32(room)
        arguments = (fd, position, places[0], keys, values, ctypes.byref(count), None)
        end = False
        try:
            lib.call("bpf_map_lookup_and_delete_batch", *arguments)
        except Failure as failure:
            if failure.errno == _ENOSPC:
                room *= 2
                continue
            if failure.errno != _ENOENT:
                raise
            end = True
        found = count.value
        if found:
            yield _split(keys, key_size, found), _split(values, value_size, found)
        if end:
            return
        position = places[0]
        places.reverse()


def _split(data: "ctypes.Array[ctypes.c_char]", size: int, count: int) -> list[bytes]:
    whole = memoryview(data)
    return [bytes(whole[start : start + size]) for start in range(0, count * size, size)]
