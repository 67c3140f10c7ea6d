"""Finds the real file behind a path: on overlayfs, containers of one image share the file that uprobes attach to.

bpf/mapped_file.bpf.c reports it for a file that is mapped here. The trap: stat() returns different numbers in each
container, so a probe set in each of their files would fire several times for one call.
"""

import ctypes
import mmap
import os
import struct

from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.object import own_program

_ENTRY = struct.Struct("<QQQ")
_KEY = bytes(4)


class RealFiles:
    """Can be created on any kernel; if the real file cannot be found, the result of stat() is used."""

    def __init__(self) -> None:
        self._object = own_program("mapped_file", "find_file")

    def identity(self, file: int) -> tuple[int, int]:
        """Returns device and inode of an open file. Raises OSError."""
        status = os.fstat(file)
        seen = status.st_dev, status.st_ino
        if self._object is None or not status.st_size:
            return seen
        with mmap.mmap(file, 1, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as memory:
            first = ctypes.c_char.from_buffer(memory)
            found = self._look(ctypes.addressof(first))
            del first
        return found or seen

    def _look(self, address: int) -> tuple[int, int] | None:
        assert self._object is not None
        map = self._object.required_map("mapped_file")
        map.put(_KEY, _ENTRY.pack(address, 0, 0))
        try:
            if self._object.run("find_file"):
                return None
        except Failure:
            return None
        _, inode, device = _ENTRY.unpack(map.get(_KEY) or bytes(_ENTRY.size))
        return (device, inode) if inode else None

    def close(self) -> None:
        if self._object:
            self._object.close()
            self._object = None
