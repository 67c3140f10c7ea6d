"""top file: reads and writes of known sizes, a prime number of times."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.bpf import deeds
from tests.bpf.answers import Answers
from tests.bpf.uring import IOSQE_FIXED_FILE, Uring

pytestmark = pytest.mark.bpf
TIMES = 37


def of(records: list[dict[str, Any]], path: Path) -> dict[str, Any]:
    status = path.stat()
    (record,) = [r for r in records if (r["inode"], device(r)) == (status.st_ino, status.st_dev)]
    return record


def device(record: dict[str, Any]) -> int:
    return os.makedev(record["device"] >> 20, record["device"] & 0xFFFFF)


def test_bytes_are_those_that_moved_and_not_those_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with Answers("top_file", pid=os.getpid()) as top:
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        for _ in range(TIMES):
            os.write(fd, b"x" * 101)
        os.lseek(fd, 0, os.SEEK_SET)
        while os.read(fd, 4096):
            pass
        os.close(fd)
        record = of(top.take(), path)
    assert (record["writes"], record["written_bytes"]) == (TIMES, TIMES * 101)
    assert (record["reads"], record["read_bytes"]) == (2, TIMES * 101)
    assert (record["pid"], record["path"]) == (os.getpid(), str(path))


@pytest.mark.parametrize("in_worker", [False, True])
def test_what_io_uring_moves_counts(in_worker: bool, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with Answers("top_file", pid=os.getpid()) as top, Uring() as ring:
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        for _ in range(TIMES):
            assert ring.write(fd, b"x" * 101, in_worker) == 101
        assert ring.read(fd, 4096) == 101
        os.close(fd)
        record = of(top.take(), path)
    assert (record["writes"], record["written_bytes"]) == (TIMES, TIMES * 101)
    assert (record["reads"], record["read_bytes"]) == (1, 101)
    assert (record["pid"], record["path"]) == (os.getpid(), str(path))


def test_calls_with_vectors_positions_and_two_files_count(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    with Answers("top_file", pid=os.getpid()) as top:
        source, target = (os.open(path, os.O_RDWR | os.O_CREAT) for path in (one, other))
        os.writev(source, [b"a" * 10, b"b" * 20])
        os.pwrite(source, b"c" * 7, 30)
        os.pwritev(source, [b"d" * 3], 37)
        os.preadv(source, [bytearray(11), bytearray(2)], 0)
        os.pread(source, 5, 0)
        os.lseek(source, 0, os.SEEK_SET)
        os.readv(source, [bytearray(6)])
        assert os.sendfile(target, source, 0, 40) == 40
        assert os.copy_file_range(source, target, 9, 0, 40) == 9
        os.close(source)
        os.close(target)
        records = top.take()
    read, written = of(records, one), of(records, other)
    assert (read["writes"], read["written_bytes"]) == (3, 40)
    assert (read["reads"], read["read_bytes"]) == (5, 13 + 5 + 6 + 40 + 9)
    assert (written["writes"], written["written_bytes"], written["reads"]) == (2, 49, 0)


def test_what_io_uring_moves_silently_counts_without_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with Answers("top_file", pid=os.getpid()) as top, Uring() as ring:
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        ring.register(fd)
        assert ring.write_silently(fd, b"x" * TIMES) == {}
        assert ring.write_silently(0, b"x" * TIMES, flags=IOSQE_FIXED_FILE) == {}
        os.close(fd)
        record = of(top.take(), path)
    assert (record["writes"], record["written_bytes"], record["reads"]) == (2, 0, 0)


def test_equal_inodes_of_two_file_systems_are_two_files(tmp_path: Path) -> None:
    places = [Path(tmp_path), Path("/dev/shm")]
    if len({place.stat().st_dev for place in places}) < 2:
        pytest.skip("there is only one file system to write to")
    paths = [place / f"kubectl-gadget-{os.getpid()}" for place in places]
    try:
        with Answers("top_file", pid=os.getpid()) as top:
            for size, path in zip((3, 5), paths, strict=True):
                path.write_bytes(b"x" * size)
            records = top.take()
        assert [of(records, path)["written_bytes"] for path in paths] == [3, 5]
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


def test_pipes_are_shown_only_when_asked_for() -> None:
    for everything, expected in ((False, []), (True, [13])):
        with Answers("top_file", pid=os.getpid(), all=everything) as top:
            receive, send = os.pipe()
            os.write(send, b"x" * 13)
            os.close(receive)
            os.close(send)
            pipes = [record for record in top.take() if record["type"] == 0o010000]
        assert [record["written_bytes"] for record in pipes] == expected


def test_what_a_process_reads_after_an_exec_counts_for_the_new_program(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * TIMES)

    def deed() -> None:
        path.read_bytes()
        os.execv("/bin/cat", ["cat", str(path)])

    with Answers("top_file") as top:
        pid, code = deeds.in_child(deed)
        inode = path.stat().st_ino
        records = [record for record in top.take() if (record["pid"], record["inode"]) == (pid, inode)]
    assert code == 0
    own = Path("/proc/self/comm").read_text().strip()
    assert {record["comm"]: record["read_bytes"] for record in records} == {own: TIMES, "cat": TIMES}
