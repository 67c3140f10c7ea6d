"""profile fs: calls on a file, each a prime number of times."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.bpf.answers import Answers
from tests.bpf.uring import Request, Uring

pytestmark = pytest.mark.bpf
OPENS, READS, WRITES, SYNCS = 11, 31, 23, 5


def file_system(path: Path) -> str:
    """As the kernel names it, of the mount that has the longest path to `path`."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    fitting = [mount for mount in mounts if path.is_relative_to(mount[1])]
    return max(fitting, key=lambda mount: len(mount[1]))[2][:15]


def counts(records: list[dict[str, Any]], kind: str) -> dict[str, int]:
    return {record["operation"]: record["count"] for record in records if record["file_system"] == kind}


def use(path: Path) -> None:
    for _ in range(OPENS):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT))
    fd = os.open(path, os.O_RDWR)
    for _ in range(WRITES):
        os.write(fd, b"x" * 100)
    for number in range(READS):
        os.preadv(fd, [bytearray(7)], number)
    for number in range(SYNCS):
        (os.fsync, os.fdatasync)[number % 2](fd)
    os.close(fd)


def test_calls_are_counted_by_operation_and_file_system(tmp_path: Path) -> None:
    with Answers("profile_fs", pid=os.getpid()) as profile:
        use(tmp_path / "file")
        records = profile.take()
        assert profile.lost == 0
    assert counts(records, file_system(tmp_path)) == {
        "open": OPENS + 1,
        "read": READS,
        "write": WRITES,
        "fsync": SYNCS,
    }
    for record in records:
        assert 0 < record["max"] <= record["total"]
        assert sum(record["buckets"]) == record["count"]


def test_file_systems_are_distinguished(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "ramfs", other], check=True)
    try:
        with Answers("profile_fs", pid=os.getpid(), operation="write") as profile:
            for count, path in ((3, tmp_path / "file"), (7, other / "file")):
                fd = os.open(path, os.O_WRONLY | os.O_CREAT)
                for _ in range(count):
                    os.write(fd, b"x")
                os.close(fd)
            records = profile.take()
    finally:
        subprocess.run(["umount", other], check=True)
    found = {record["file_system"]: (record["operation"], record["count"]) for record in records}
    assert found == {file_system(tmp_path): ("write", 3), "ramfs": ("write", 7)}


def test_what_waits_for_others_and_what_fails_is_left_out() -> None:
    with Answers("profile_fs", pid=os.getpid()) as profile:
        receive, send = os.pipe()
        os.write(send, b"x")
        os.read(receive, 1)
        os.close(receive)
        os.close(send)
        with pytest.raises(FileNotFoundError):
            os.open("/no/such/file", os.O_RDONLY)
        assert profile.take() == []


@pytest.mark.parametrize("in_worker", [False, True])
def test_what_io_uring_does_counts_when_it_completes(tmp_path: Path, in_worker: bool) -> None:
    path = os.fsencode(tmp_path / "file")
    receive, send = os.pipe()
    with Answers("profile_fs", pid=os.getpid()) as profile, Uring() as uring:
        (fd,) = uring.open([Request(path, os.O_RDWR | os.O_CREAT, 0o600, in_worker=in_worker)])
        assert uring.open([Request(path + b"-none")])[0] < 0
        for _ in range(WRITES):
            uring.write(fd, b"x" * 100, in_worker)
        for _ in range(READS):
            uring.read(fd, 7)
        for _ in range(SYNCS):
            assert uring.fsync(fd) == 0
        # Not how long a request takes that is not reported, nor what waits for others.
        assert uring.write_silently(fd, b"silent") == {}
        uring.write(send, b"x")
        records = profile.take()
        assert profile.lost == 0
        for number in (fd, receive, send):
            os.close(number)
    assert counts(records, file_system(tmp_path)) == {"open": 1, "read": READS, "write": WRITES, "fsync": SYNCS}
    assert len(records) == 4
    assert all(0 < record["max"] <= record["total"] for record in records)


def test_only_the_operation_that_was_asked_for_counts(tmp_path: Path) -> None:
    with Answers("profile_fs", pid=os.getpid(), operation="write") as profile, Uring() as uring:
        (fd,) = uring.open([Request(os.fsencode(tmp_path / "file"), os.O_RDWR | os.O_CREAT, 0o600)])
        uring.write(fd, b"x")
        uring.read(fd, 1)
        os.close(fd)
        assert counts(profile.take(), file_system(tmp_path)) == {"write": 1}
