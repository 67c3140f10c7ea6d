"""Just enough of io_uring to submit opens, writes, and what sockets do: one ring, filled, submitted, reaped as a whole.

The layout is that of io_uring_setup(2). What is passed by address must live until the kernel is done.
"""

import ctypes
import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from tests.bpf.deeds import AT_FDCWD, syscall

SETUP, ENTER = 425, 426
SQPOLL = 1 << 1
"""Of a ring: a thread of the kernel submits what lies in it."""
WAKE_UP = 1 << 1
OP_NOP, OP_READV, OP_WRITEV, OP_FSYNC = 0, 1, 2, 3
OP_SENDMSG, OP_RECVMSG, OP_ACCEPT, OP_CONNECT, OP_OPENAT, OP_READ, OP_WRITE = 9, 10, 13, 16, 18, 22, 23
OP_SEND, OP_RECV, OP_OPENAT2, OP_SPLICE, OP_MSG_RING, OP_READ_MULTISHOT, OP_BIND = 26, 27, 28, 30, 40, 49, 56
IOSQE_FIXED_FILE, IOSQE_IO_LINK, IOSQE_IO_HARDLINK = 1 << 0, 1 << 2, 1 << 3
IOSQE_ASYNC, IOSQE_CQE_SKIP_SUCCESS = 1 << 4, 1 << 6
HERE = (1 << 64) - 1
"""An offset: where the file stands."""
GETEVENTS = 1
RENAMEAT, UNLINKAT, MKDIRAT, SYMLINKAT, LINKAT, FSETXATTR, SETXATTR, FTRUNCATE = 35, 36, 37, 38, 39, 41, 42, 55
_SQES = 0x10000000
_SQE = struct.Struct("<BBHiQQIIQHHIQ8x")
REGISTER, REGISTER_FILES2 = 427, 13
_DONE = 1 << 32
"""What a request is called that ends a submission, of which nothing else may be reported."""
Entry = tuple[int, int, int, int, int, int]
"""Operation, IOSQE_…, address, offset, length, flags of the operation."""


class Request(NamedTuple):
    """One open. `mode` and `flags` as in open(2)."""

    path: bytes
    flags: int = os.O_RDONLY
    mode: int = 0
    openat2: bool = False
    in_worker: bool = False
    """by a worker thread of io_uring, not at once"""
    is_silent: bool = False
    """it is not to be reported when it succeeds"""
    slot: int = 0
    """of direct descriptors, from 1; 0: a descriptor of the process"""

    def sqe_flags(self) -> int:
        """IOSQE_…"""
        return (IOSQE_ASYNC if self.in_worker else 0) | (IOSQE_CQE_SKIP_SUCCESS if self.is_silent else 0)


class Message:
    """A struct msghdr with one byte of data, and with descriptors, or room for one."""

    def __init__(self, *fds: int) -> None:
        count = len(fds) or 1
        size = 16 + 4 * count
        self._control = ctypes.create_string_buffer(struct.pack(f"<Qii{count}i", size, 1, 1, *(fds or (-1,))), size)
        self._data = ctypes.create_string_buffer(b"x", 1)
        vector = struct.pack("<QQ", ctypes.addressof(self._data), 1)
        self._vector = ctypes.create_string_buffer(vector, 16)
        control = ctypes.addressof(self._control)
        header = struct.pack("<QQQQQQQ", 0, 0, ctypes.addressof(self._vector), 1, control, size, 0)
        self._header = ctypes.create_string_buffer(header, 56)
        self.address = ctypes.addressof(self._header)

    @property
    def fd(self) -> int:
        """The first descriptor."""
        (fd,) = struct.unpack_from("<i", self._control.raw, 16)
        return int(fd)


class Uring:
    """A ring of `entries` requests. Use as a context manager."""

    def __init__(self, entries: int = 64, flags: int = 0) -> None:
        parameters = ctypes.create_string_buffer(struct.pack("<III", 0, 0, flags), 120)
        self._kept: list[object] = []
        self.fd = syscall(SETUP, entries, parameters)
        if self.fd < 0:
            raise OSError(-self.fd, f"io_uring_setup: {os.strerror(-self.fd)}")
        words = struct.unpack("<30I", parameters.raw)
        self._entries = words[0]
        self._is_polled = bool(flags & SQPOLL)
        self._sq, self._cq = words[10:20], words[20:30]
        size = max(self._sq[6] + self._entries * 4, self._cq[5] + words[1] * 16)
        self._rings = mmap.mmap(self.fd, size)
        self._sqes = mmap.mmap(self.fd, self._entries * 64, offset=_SQES)

    def __enter__(self) -> "Uring":
        return self

    def __exit__(self, *_: object) -> None:
        self._sqes.close()
        self._rings.close()
        os.close(self.fd)

    def place(self, data: bytes) -> int:
        """The address of these bytes, which live as long as the ring."""
        kept = ctypes.create_string_buffer(data, len(data))
        self._kept.append(kept)
        return ctypes.addressof(kept)

    def nop(self) -> int:
        """The result of a request that opens nothing."""
        return self.run([(OP_NOP, 0, 0, 0, 0, 0)])[0]

    def open(self, requests: Sequence[Request]) -> list[int]:
        """Submits all at once; file descriptors, or negative errnos. They stay open."""
        with _opens(requests) as entries:
            return self.run(entries, slots=[request.slot for request in requests])

    def open_silently(self, requests: Sequence[Request]) -> dict[int, int]:
        """The same; results of those that are reported, by their number. Returns when all are done."""
        with _opens(requests) as entries:
            return self.run_silently(entries, slots=[request.slot for request in requests])

    def open_unreaped(self, requests: Sequence[Request]) -> None:
        """Submits them and takes nothing out of the queue of completions. Each is done at once."""
        with _opens(requests) as entries:
            self.submit_unreaped(entries)

    def submit_unreaped(self, entries: Sequence[Entry], fd: int = AT_FDCWD) -> None:
        """Submits them and takes nothing out of the queue of completions."""
        self._fill(entries, fd, [0] * len(entries), range(len(entries)))
        assert syscall(ENTER, self.fd, len(entries), 0, 0, None, 0) == len(entries)

    def register_slots(self, count: int) -> None:
        """Room for so many direct descriptors."""
        self.register(*[-1] * count)

    def register(self, *fds: int) -> None:
        """Registers files, to be used by their places with IOSQE_FIXED_FILE."""
        count = len(fds)
        none = ctypes.create_string_buffer(struct.pack(f"<{count}i", *fds), 4 * count)
        what = ctypes.create_string_buffer(struct.pack("<IIQQQ", count, 0, 0, ctypes.addressof(none), 0), 32)
        done = syscall(REGISTER, self.fd, REGISTER_FILES2, what, 32)
        assert done == 0, os.strerror(-done)

    def bind(self, fd: int, address: bytes) -> int:
        """The result of binding a socket to a struct sockaddr (Linux 6.11)."""
        kept = ctypes.create_string_buffer(address, len(address))
        return self.run([(OP_BIND, 0, ctypes.addressof(kept), len(address), 0, 0)], fd)[0]

    def connect(self, fd: int, address: bytes) -> int:
        """The result of connecting a socket to a struct sockaddr."""
        kept = ctypes.create_string_buffer(address, len(address))
        return self.run([(OP_CONNECT, 0, ctypes.addressof(kept), len(address), 0, 0)], fd)[0]

    def send_message(self, fd: int, message: "Message", is_silent: bool = False) -> int | None:
        """The result of sendmsg(); None: it was not reported."""
        flags = IOSQE_CQE_SKIP_SUCCESS if is_silent else 0
        return self.run_silently([(OP_SENDMSG, flags, message.address, 0, 1, 0)], fd).get(0)

    def receive_message(self, fd: int, message: "Message") -> int:
        """The result of recvmsg()."""
        return self.run([(OP_RECVMSG, 0, message.address, 0, 1, 0)], fd)[0]

    def write(self, fd: int, data: bytes, in_worker: bool = False) -> int:
        """The result of a write at the file's beginning."""
        kept = ctypes.create_string_buffer(data, len(data))
        flags = IOSQE_ASYNC if in_worker else 0
        return self.run([(OP_WRITE, flags, ctypes.addressof(kept), 0, len(data), 0)], fd)[0]

    def pass_file(self, other: "Uring", slot: int, to: int, is_silent: bool = False) -> dict[int, int]:
        """Passes the registered file of a slot to a slot of the other ring; the result by the number 0."""
        flags = IOSQE_CQE_SKIP_SUCCESS if is_silent else 0
        # Offset: what the completion there is called. Address: IORING_MSG_SEND_FD. The slots are in the last fields.
        return self.run_silently([(OP_MSG_RING, flags, 1, 0, 0, 0)], other.fd, slots=[to + 1], address3=slot)

    def read_slot(self, slot: int, size: int) -> int:
        """How much a read of a registered file got."""
        return self.run([(OP_READ, IOSQE_FIXED_FILE, self.place(bytes(size)), 0, size, 0)], slot)[0]

    def write_silently(self, fd: int, data: bytes, offset: int = 0, flags: int = 0) -> dict[int, int]:
        """A write that is not to be reported; its result by the number 0 when it is. `flags`: IOSQE_…"""
        entry = (OP_WRITE, flags | IOSQE_CQE_SKIP_SUCCESS, self.place(data), offset, len(data), 0)
        return self.run_silently([entry], fd)

    def fsync(self, fd: int) -> int:
        """The result of fsync()."""
        return self.run([(OP_FSYNC, 0, 0, 0, 0, 0)], fd)[0]

    def send(self, fd: int, data: bytes) -> int:
        """The result of send()."""
        kept = ctypes.create_string_buffer(data, len(data))
        return self.run([(OP_SEND, 0, ctypes.addressof(kept), 0, len(data), 0)], fd)[0]

    def receive(self, fd: int, size: int) -> bytes:
        """What recv() got."""
        kept = ctypes.create_string_buffer(size)
        result = self.run([(OP_RECV, 0, ctypes.addressof(kept), 0, size, 0)], fd)[0]
        assert result >= 0, os.strerror(-result)
        return kept.raw[:result]

    def read(self, fd: int, size: int) -> int:
        """How much a read at the file's beginning got."""
        kept = ctypes.create_string_buffer(size)
        return self.run([(OP_READ, 0, ctypes.addressof(kept), 0, size, 0)], fd)[0]

    def accept(self, fd: int) -> int:
        """The new file descriptor."""
        return self.run([(OP_ACCEPT, 0, 0, 0, 0, 0)], fd)[0]

    def run_silently(
        self, entries: Sequence[Entry], fd: int = AT_FDCWD, slots: Sequence[int] = (), address3: int = 0
    ) -> dict[int, int]:
        """Results of the entries that are reported, by their number. One is done after the other."""
        linked = [(entry[0], entry[1] | IOSQE_IO_HARDLINK, *entry[2:]) for entry in entries]
        self._fill(linked, fd, slots or [0] * len(entries), range(len(entries)), address3)
        self._fill([(OP_NOP, 0, 0, 0, 0, 0)], fd, [0], [_DONE])
        results: dict[int, int] = {}
        submit = len(entries) + 1
        while _DONE not in results:
            done = syscall(ENTER, self.fd, submit, 1, GETEVENTS, None, 0)
            assert done >= 0, os.strerror(-done)
            submit -= done
            results |= self._reap()
        del results[_DONE]
        return results

    def run(self, entries: Sequence[Entry], fd: int = AT_FDCWD, slots: Sequence[int] = ()) -> list[int]:
        """Submits all at once, and returns their results."""
        self._fill(entries, fd, slots or [0] * len(entries), range(len(entries)))
        results: dict[int, int] = {}
        submit = len(entries)
        while len(results) < len(entries):
            flags = GETEVENTS | (WAKE_UP if self._is_polled else 0)
            done = syscall(ENTER, self.fd, submit, len(entries) - len(results), flags, None, 0)
            assert done >= 0, os.strerror(-done)
            submit -= done
            results |= self._reap()
        return [results[number] for number in range(len(entries))]

    def _fill(
        self, entries: Sequence[Entry], fd: int, slots: Sequence[int], names: Sequence[int], address3: int = 0
    ) -> None:
        tail = self._word(self._sq[1])
        mask = self._word(self._sq[2])
        rows = zip(names, entries, slots, strict=True)
        for place, (name, (opcode, flags, address, offset, length, open_flags), file_slot) in enumerate(rows):
            slot = (tail + place) & mask
            sqe = _SQE.pack(opcode, flags, 0, fd, offset, address, length, open_flags, name, 0, 0, file_slot, address3)
            self._sqes[slot * 64 : slot * 64 + 64] = sqe
            struct.pack_into("<I", self._rings, self._sq[6] + slot * 4, slot)
        struct.pack_into("<I", self._rings, self._sq[1], tail + len(entries))

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


@contextmanager
def _opens(requests: Sequence[Request]) -> Iterator[list[Entry]]:
    """What lies behind the addresses in the entries lives as long as the context."""
    kept: list[object] = []
    entries = []
    for request in requests:
        path = ctypes.create_string_buffer(request.path)
        how = ctypes.create_string_buffer(struct.pack("<QQQ", request.flags, request.mode, 0), 24)
        kept += [path, how]
        flags = request.sqe_flags()
        if request.openat2:
            entries.append((OP_OPENAT2, flags, ctypes.addressof(path), ctypes.addressof(how), 24, 0))
        else:
            entries.append((OP_OPENAT, flags, ctypes.addressof(path), 0, request.mode, request.flags))
    yield entries
