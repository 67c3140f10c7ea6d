"""Linux AIO (io_submit): reads and writes without a call of that name."""

import ctypes
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kubectl_gadget.filters import pushdown
from tests.bpf import compat, deeds
from tests.bpf.answers import Answers
from tests.bpf.test_top_file import of
from tests.bpf.tracer import Tracer

pytestmark = pytest.mark.bpf
IO_SETUP, IO_DESTROY, IO_SUBMIT = (206, 207, 209) if deeds.X86 else (0, 1, 2)
PREAD, PWRITE, FSYNC, PREADV, PWRITEV = 0, 1, 2, 7, 8
NONE = (1 << 64) - 1
REQUESTS = 128
"""GADGET_AIO_REQUESTS."""


def request(operation: int, fd: int, buffer: int, bytes: int) -> bytes:
    """struct iocb."""
    return struct.pack("<QQHhiQQqQII", 0, 0, operation, 0, fd, buffer, bytes, 0, 0, 0, 0)


class Native:
    """A context of this process."""

    def __init__(self) -> None:
        context = ctypes.c_uint64()
        if deeds.syscall(IO_SETUP, 512, ctypes.addressof(context)):
            pytest.skip("this kernel has no io_setup()")
        self._context = context.value
        self._kept: list[ctypes.Array[ctypes.c_char]] = []

    def place(self, data: bytes) -> int:
        self._kept.append(ctypes.create_string_buffer(data, len(data)))
        return ctypes.addressof(self._kept[-1])

    def submit(self, *requests: bytes) -> int:
        addresses = self.place(b"".join(struct.pack("<Q", self.place(one)) for one in requests))
        return deeds.syscall(IO_SUBMIT, self._context, len(requests), addresses)

    def close(self) -> None:
        deeds.syscall(IO_DESTROY, self._context)


class Compat:
    """The same by calls of 32-bit programs, whose pointers have 32 bits."""

    place = staticmethod(compat.place)

    def __init__(self) -> None:
        compat.needs()
        place = compat.place(bytes(8))
        assert compat.call("io_setup", 512, place) == 0
        self._context = int.from_bytes(ctypes.string_at(place, 4), "little")

    def submit(self, *requests: bytes) -> int:
        addresses = compat.place(b"".join(struct.pack("<I", compat.place(one)) for one in requests))
        return compat.call("io_submit", self._context, len(requests), addresses)

    def close(self) -> None:
        compat.call("io_destroy", self._context)


@pytest.fixture(params=[Native, Compat])
def aio(request: pytest.FixtureRequest) -> Iterator[Native | Compat]:
    made: Callable[[], Native | Compat] = request.param
    context = made()
    yield context
    context.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    return file


def requests_of(aio: Native | Compat, fd: int) -> list[bytes]:
    """Two reads and two writes, and one request that moves nothing."""
    memory = aio.place(bytes(16))
    vector = aio.place(struct.pack("<QQ" if isinstance(aio, Native) else "<II", memory, 4))
    one = [request(PREAD, fd, memory, 7), request(PREADV, fd, vector, 1), request(FSYNC, fd, 0, 0)]
    return [*one, request(PWRITE, fd, memory, 3), request(PWRITEV, fd, vector, 1)]


def test_fileuse_sees_what_is_submitted_without_knowing_how_much_it_moved(aio: Native | Compat, path: Path) -> None:
    tails = pushdown.table(pushdown.read_paths(str(path)))
    with Tracer("trace_fileuse", pid=os.getpid(), compat=True, variables={"wanted_paths": tails}) as tracer:
        fd = os.open(path, os.O_RDWR)
        assert aio.submit(*requests_of(aio, fd)) == 5
        assert aio.submit(request(PREAD, 999, 0, 1)) < 0
        os.close(fd)
        told = [(record["operation"], record["bytes"], record["fd"]) for record in tracer.records()]
    uses = [(operation, NONE, fd) for operation in ("read", "read", "write", "write")]
    # Whether the close is told without fentry is chance: a request that is under way still has the file.
    assert told[:5] == [("open", NONE, fd), *uses]
    assert {operation for operation, _, _ in told[5:]} <= {"close"}


def test_top_file_counts_what_is_submitted_without_bytes(aio: Native | Compat, path: Path) -> None:
    with Answers("top_file", pid=os.getpid()) as top:
        fd = os.open(path, os.O_RDWR)
        assert aio.submit(*requests_of(aio, fd)) == 5
        os.close(fd)
        record = of(top.take(), path)
    assert (record["reads"], record["read_bytes"]) == (2, 0)
    assert (record["writes"], record["written_bytes"]) == (2, 0)


def test_profile_fs_gives_each_request_an_equal_part_of_the_call(aio: Native | Compat, path: Path) -> None:
    with Answers("profile_fs", pid=os.getpid()) as profile:
        fd = os.open(path, os.O_RDWR)
        assert aio.submit(*requests_of(aio, fd)) == 5
        os.close(fd)
        records = {record["operation"]: record for record in profile.take()}
    assert {operation: record["count"] for operation, record in records.items()} == {"open": 1, "read": 2, "write": 2}
    assert records["read"]["total"] == records["write"]["total"] == 2 * records["read"]["max"]


def test_fsslower_shows_each_request_of_a_slow_call(aio: Native | Compat, path: Path) -> None:
    with Tracer("trace_fsslower", pid=os.getpid(), compat=True, min=0) as tracer:
        fd = os.open(path, os.O_RDWR)
        assert aio.submit(*requests_of(aio, fd)) == 5
        assert aio.submit(request(PREAD, 999, 0, 1)) < 0
        os.close(fd)
        told = [record for record in tracer.records() if record["operation"] != "open"]
    assert [record["operation"] for record in told] == ["read", "read", "write", "write"]
    assert {(record["bytes"], record["offset"], record["path_base"]) for record in told} == {(NONE, 0, str(path))}
    assert len({record["duration"] for record in told}) == 1


def test_what_is_beyond_the_room_is_counted_as_lost(path: Path) -> None:
    tails = pushdown.table(pushdown.read_paths(str(path)))
    aio = Native()
    with Tracer("trace_fileuse", pid=os.getpid(), variables={"wanted_paths": tails}) as tracer:
        fd = os.open(path, os.O_RDWR)
        memory = aio.place(bytes(16))
        assert aio.submit(*[request(PREAD, fd, memory, 1)] * (REQUESTS + 1)) == REQUESTS + 1
        os.close(fd)
        reads = [record for record in tracer.records() if record["operation"] == "read"]
        assert (len(reads), tracer.lost) == (REQUESTS, 1)
    aio.close()
