"""trace open: files that are opened without a system call of their own, through io_uring."""

import errno
import os
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.bpf import deeds
from tests.bpf.tracer import Tracer
from tests.bpf.uring import SQPOLL, Request, Uring

PENDING = 4096
"""Opens that trace_open.bpf.c holds at most."""
TIMES = 101
UNKNOWN = -1
ANY_SLOT = 2**32 - 1
"""IORING_FILE_INDEX_ALLOC."""


def is_open_at(fd: int, path: bytes) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}") == os.fsdecode(path)
    except OSError:
        return False


def why_no_uring() -> str | None:
    try:
        with Uring(1):
            return None
    except OSError as error:
        return error.strerror


pytestmark = [pytest.mark.bpf, pytest.mark.skipif(why_no_uring() is not None, reason=f"io_uring: {why_no_uring()}")]


@pytest.fixture
def path(tmp_path: Path) -> bytes:
    file = tmp_path / uuid.uuid4().hex
    file.touch()
    return os.fsencode(file)


def of(path: bytes, tracer: Tracer) -> list[dict[str, Any]]:
    return [record for record in tracer.records() if record["path"] == os.fsdecode(path)]


def close(fds: list[int]) -> None:
    for fd in fds:
        assert fd >= 0, os.strerror(-fd)
        os.close(fd)


@pytest.mark.parametrize("openat2", [False, True])
@pytest.mark.parametrize("in_worker", [False, True])
def test_each_open_is_seen_once(path: bytes, openat2: bool, in_worker: bool) -> None:
    flags = os.O_RDWR | os.O_CREAT
    with Tracer("trace_open") as tracer, Uring(128) as uring:
        fds = uring.open([Request(path, flags, 0o640, openat2, in_worker)] * TIMES)
        records = of(path, tracer)
        close(fds)
    assert sorted(record["fd"] for record in records) == sorted(fds)
    assert {(record["flags"], record["mode"], record["errno"]) for record in records} == {(flags, 0o640, 0)}
    assert {(record["pid"], record["uid"]) for record in records} == {(os.getpid(), os.getuid())}
    assert len(records) == TIMES


def test_a_failed_open_has_its_errno(path: bytes) -> None:
    missing = path + b"-not-there"
    with Tracer("trace_open", failed=True, pid=os.getpid()) as tracer, Uring() as uring:
        close(uring.open([Request(path)]))
        assert uring.open([Request(missing)]) == [-errno.ENOENT]
        records = tracer.records()
    assert [(record["path"], record["errno"], record["fd"]) for record in records] == [
        (os.fsdecode(missing), errno.ENOENT, -1)
    ]


def test_other_requests_make_no_records(path: bytes) -> None:
    with Tracer("trace_open", pid=os.getpid()) as tracer, Uring() as uring:
        close(uring.open([Request(path)]))
        assert uring.nop() == 0
        assert len(tracer.records()) == 1


def test_path_is_filtered_in_the_kernel(path: bytes) -> None:
    with Tracer("trace_open", path=os.fsdecode(path), pid=os.getpid()) as tracer, Uring() as uring:
        close(uring.open([Request(path), Request(b"/dev/null"), Request(path)]))
        assert [record["path"] for record in tracer.records()] == [os.fsdecode(path)] * 2


def test_more_opens_at_once_than_the_kernel_may_hold_have_an_unknown_result() -> None:
    missing = f"/{uuid.uuid4().hex}".encode()
    many = 2 * PENDING
    with Tracer("trace_open", pid=os.getpid(), ring_bytes=16 << 20) as tracer, Uring(many) as uring:
        # All of one submission are complete only at its end.
        results = uring.open([Request(missing)] * many)
        seen = [record["errno"] for record in of(missing, tracer)]
        assert results == [-errno.ENOENT] * many
        assert (len(seen), tracer.lost) == (many, 0)
        assert set(seen) == {errno.ENOENT, UNKNOWN}


@pytest.mark.parametrize("in_worker", [False, True])
def test_what_is_not_reported_is_seen_without_its_result(path: bytes, in_worker: bool) -> None:
    requests = [Request(path, os.O_WRONLY, in_worker=in_worker, is_silent=True)] * TIMES
    before = set(os.listdir("/proc/self/fd"))
    with Tracer("trace_open", path=os.fsdecode(path), write=True) as tracer, Uring(128) as uring:
        assert uring.open_silently(requests) == {}
        close([int(fd) for fd in set(os.listdir("/proc/self/fd")) - before if is_open_at(int(fd), path)])
        records = tracer.records()
    assert {(record["pid"], record["errno"], record["fd"]) for record in records} == {(os.getpid(), UNKNOWN, -1)}
    assert len(records) == TIMES


def test_what_is_not_reported_and_fails_is_seen_with_its_error_too() -> None:
    missing = f"/{uuid.uuid4().hex}".encode()
    with Tracer("trace_open", pid=os.getpid()) as tracer, Uring() as uring:
        assert uring.open_silently([Request(missing, is_silent=True)]) == {0: -errno.ENOENT}
        assert [record["errno"] for record in of(missing, tracer)] == [UNKNOWN, errno.ENOENT]
    with Tracer("trace_open", pid=os.getpid(), failed=True) as tracer, Uring() as uring:
        uring.open_silently([Request(missing, is_silent=True)])
        # It may have failed.
        assert [record["errno"] for record in of(missing, tracer)] == [UNKNOWN, errno.ENOENT]


def test_what_finds_the_queue_of_completions_full_is_seen_without_its_result(path: bytes) -> None:
    with Tracer("trace_open", pid=os.getpid()) as tracer, Uring(1) as uring:
        for _ in range(TIMES):
            uring.open_unreaped([Request(path)])
        seen = [record["errno"] for record in of(path, tracer)]
    # The queue holds two.
    assert seen == [0, 0] + [UNKNOWN] * (TIMES - 2)


@pytest.mark.parametrize("slot", [2, ANY_SLOT], ids=["chosen", "any"])
def test_a_direct_descriptor_has_a_resolved_path_and_no_number(path: bytes, slot: int) -> None:
    text = os.fsdecode(path)
    other = Request(b"/dev/null", slot=slot if slot == ANY_SLOT else slot + 1)
    with Tracer("trace_open", path=text, resolve=True) as tracer, Uring() as uring:
        uring.register_slots(4)
        results = uring.open([Request(path, slot=slot), other, Request(b"/dev/null")])
        assert results[0] == 0
        assert results[1] >= 0
        (record,) = tracer.records()
    assert (record["path"], record["fd"], record["errno"], record["resolved"]) == (text, -1, 0, text)


def test_what_a_thread_of_the_kernel_submits_belongs_to_its_process(path: bytes) -> None:
    with Tracer("trace_open", path=os.fsdecode(path)) as tracer, Uring(4, SQPOLL) as uring:
        close(uring.open([Request(path)]))
        (record,) = tracer.records()
    assert (record["pid"], record["errno"]) == (os.getpid(), 0)
    assert record["tid"] != os.getpid()


def test_a_worker_of_another_process_is_distinguished(path: bytes) -> None:
    def opens() -> None:
        with Uring() as uring:
            close(uring.open([Request(path, in_worker=True)]))

    with Tracer("trace_open") as tracer:
        pid, code = deeds.in_child(opens)
        (record,) = of(path, tracer)
    assert (code, record["pid"]) == (0, pid)
