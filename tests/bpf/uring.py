"""Just enough of io_uring to submit opens, writes, and what sockets do: one ring, filled, submitted, reaped as a whole.

The layout is that of io_uring_setup(2). The trap: what is passed by address must live until the kernel is done.
"""

import ctypes
import mmap
import os
import struct
from collections.abc import Sequence
from typing import NamedTuple

from tests.bpf.deeds import AT_FDCWD, syscall

SETUP, ENTER = 425, 426
OP_NOP, OP_ACCEPT, OP_CONNECT, OP_OPENAT, OP_WRITE, OP_OPENAT2, OP_BIND = 0, 13, 16, 18, 23, 28, 56
IOSQE_ASYNC = 1 << 4
GETEVENTS = 1
_SQES = 0x10000000
_SQE = struct.Struct("<BBHiQQIIQ24x")


class Request(NamedTuple):
    """One open. `mode` and `flags` as in open(2)."""

    path: bytes
    flags: int = os.O_RDONLY
    mode: int = 0
    openat2: bool = False
    in_worker: bool = False
    """by a worker thread of io_uring, not at once"""


class Uring:
    """A ring of `entries` requests. Use as a context manager."""

    def __init__(self, entries: int = 64) -> None:
        parameters = ctypes.create_string_buffer(120)
        self._fd = syscall(SETUP, entries, parameters)
        if self._fd < 0:
            raise OSError(-self._fd, f"io_uring_setup: {os.strerror(-self._fd)}")
        words = struct.unpack("<30I", parameters.raw)
        self._entries = words[0]
        self._sq, self._cq = words[10:20], words[20:30]
        size = max(self._sq[6] + self._entries * 4, self._cq[5] + words[1] * 16)
        self._rings = mmap.mmap(self._fd, size)
        self._sqes = mmap.mmap(self._fd, self._entries * 64, offset=_SQES)

    def __enter__(self) -> "Uring":
        return self

    def __exit__(self, *_: object) -> None:
        self._sqes.close()
        self._rings.close()
        os.close(self._fd)

    def nop(self) -> int:
        """The result of a request that opens nothing."""
        return self._run([(OP_NOP, 0, 0, 0, 0, 0)])[0]

    def open(self, requests: Sequence[Request]) -> list[int]:
        """Submits all at once; file descriptors, or negative errnos. They stay open."""
        kept: list[object] = []
        entries = []
        for request in requests:
            path = ctypes.create_string_buffer(request.path)
            how = ctypes.create_string_buffer(struct.pack("<QQQ", request.flags, request.mode, 0), 24)
            kept += [path, how]
            flags = IOSQE_ASYNC if request.in_worker else 0
            if request.openat2:
                entries.append((OP_OPENAT2, flags, ctypes.addressof(path), ctypes.addressof(how), 24, 0))
            else:
                entries.append((OP_OPENAT, flags, ctypes.addressof(path), 0, request.mode, request.flags))
        return self._run(entries)

    def bind(self, fd: int, address: bytes) -> int:
        """The result of binding a socket to a struct sockaddr (Linux 6.11)."""
        kept = ctypes.create_string_buffer(address, len(address))
        return self._run([(OP_BIND, 0, ctypes.addressof(kept), len(address), 0, 0)], fd)[0]

    def connect(self, fd: int, address: bytes) -> int:
        """The result of connecting a socket to a struct sockaddr."""
        kept = ctypes.create_string_buffer(address, len(address))
        return self._run([(OP_CONNECT, 0, ctypes.addressof(kept), len(address), 0, 0)], fd)[0]

    def write(self, fd: int, data: bytes, in_worker: bool = False) -> int:
        """The result of a write at the file's beginning."""
        kept = ctypes.create_string_buffer(data, len(data))
        flags = IOSQE_ASYNC if in_worker else 0
        return self._run([(OP_WRITE, flags, ctypes.addressof(kept), 0, len(data), 0)], fd)[0]

    def accept(self, fd: int) -> int:
        """The new file descriptor."""
        return self._run([(OP_ACCEPT, 0, 0, 0, 0, 0)], fd)[0]

    def _run(self, entries: Sequence[tuple[int, int, int, int, int, int]], fd: int = AT_FDCWD) -> list[int]:
        tail = self._word(self._sq[1])
        mask = self._word(self._sq[2])
        for number, (opcode, flags, address, offset, length, open_flags) in enumerate(entries):
            slot = (tail + number) & mask
            sqe = _SQE.pack(opcode, flags, 0, fd, offset, address, length, open_flags, number)
            self._sqes[slot * 64 : slot * 64 + 64] = sqe
            struct.pack_into("<I", self._rings, self._sq[6] + slot * 4, slot)
        struct.pack_into("<I", self._rings, self._sq[1], tail + len(entries))
        results: dict[int, int] = {}
        submit = len(entries)
        while len(results) < len(entries):
            done = syscall(ENTER, self._fd, submit, len(entries) - len(results), GETEVENTS, None, 0)
            assert done >= 0, os.strerror(-done)
            submit -= done
            results |= self._reap()
        return [results[number] for number in range(len(entries))]

    def _reap(self) -> dict[int, int]:
        head, tail = self._word(self._cq[0]), self._word(self._cq[1])
        found = {}
        for position in range(head, tail):
            at = self._cq[5] + (position & self._word(self._cq[2])) * 16
            number, result = struct.unpack_from("<Qi", self._rings, at)
            found[number] = result
        struct.pack_into("<I", self._rings, self._cq[0], tail)
        return found

    def _word(self, offset: int) -> int:
        word: int = struct.unpack_from("<I", self._rings, offset)[0]
        return word
