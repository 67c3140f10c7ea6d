"""trace fileuse: files that are used a prime number of times, through every way that a descriptor can go."""

import ctypes
import mmap
import os
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.filters import pushdown
from tests.bpf import deeds
from tests.bpf.tracer import Tracer

pytestmark = pytest.mark.bpf
TIMES = 31
SIZE = 1275
NONE = (1 << 64) - 1
CLOSE_RANGE = 436


def wanting(*paths: Path) -> Tracer:
    tails = pushdown.table(pushdown.read_paths(",".join(map(str, paths))))
    return Tracer("trace_fileuse", variables={"wanted_paths": tails})


@pytest.fixture(scope="module")
def shared(catalogue_built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracer]:
    """One for all tests, each in a folder of its own: attaching to 25 system calls takes seconds."""
    with wanting(tmp_path_factory.getbasetemp()) as tracer:
        yield tracer
        assert tracer.lost == 0


class Folder:
    """The rows of one folder."""

    def __init__(self, tracer: Tracer, folder: Path) -> None:
        self._tracer, self._folder = tracer, f"{folder}/"
        tracer.records()

    def records(self) -> list[dict[str, Any]]:
        return [record for record in self._tracer.records() if record["path"].startswith(self._folder)]


@pytest.fixture
def folder(shared: Tracer, tmp_path: Path) -> Folder:
    return Folder(shared, tmp_path)


def told(records: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """What was done and with how many bytes; -1 where no bytes belong to it."""
    return [(record["operation"], -1 if record["bytes"] == NONE else record["bytes"]) for record in records]


def test_a_file_is_reported_from_open_to_close_under_one_id(tmp_path: Path, folder: Folder) -> None:
    file = tmp_path / "file"
    with open(file, "wb", buffering=0) as opened:
        opened.write(b"x" * SIZE)
    with open(file, "rb", buffering=0) as opened:
        assert len(opened.read(2 * SIZE)) == SIZE
    records = folder.records()
    assert told(records) == [("open", -1), ("write", SIZE), ("close", -1), ("open", -1), ("read", SIZE), ("close", -1)]
    assert {record["path"] for record in records} == {str(file)}
    assert {record["inode"] for record in records} == {file.stat().st_ino}
    ids = [record["file_id"] for record in records]
    assert ids[0] == ids[1] == ids[2] != ids[3] == ids[4] == ids[5]
    assert {record["exec_id"] for record in records} == {records[0]["exec_id"]}
    assert records[0]["exec_id"] >> 64 == os.getpid()


def test_each_of_many_files_is_opened_written_and_closed_once(tmp_path: Path, folder: Folder) -> None:
    for number in range(TIMES):
        (tmp_path / f"{number}").write_bytes(b"x" * (number + 1))
    records = folder.records()
    by_id: dict[int, list[dict[str, Any]]] = {}
    for record in records:
        by_id.setdefault(record["file_id"], []).append(record)
    assert len(by_id) == TIMES
    for number, uses in enumerate(by_id.values()):
        assert told(uses) == [("open", -1), ("write", number + 1), ("close", -1)]
        assert {use["path"] for use in uses} == {str(tmp_path / f"{number}")}


def test_only_what_lies_below_the_folder_or_is_the_file_is_reported(tmp_path: Path) -> None:
    names = ["folder/a", "folder/deep/er/b", "folderx/c", "file", "filex", "other/folder/d"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    with wanting(tmp_path / "folder", tmp_path / "file") as tracer:
        for name in names:
            (tmp_path / name).write_bytes(b"")
        opened = [record["path"] for record in tracer.records() if record["operation"] == "open"]
    assert opened == [str(tmp_path / name) for name in ("folder/a", "folder/deep/er/b", "file")]


def test_a_file_so_deep_that_its_path_is_cut_is_reported(tmp_path: Path) -> None:
    """Otherwise, a program could hide files in more folders than are walked (GADGET_PATH_STEPS)."""
    deep = tmp_path / "folder" / "/".join("d" * 100)
    deep.mkdir(parents=True)
    with wanting(tmp_path / "folder") as tracer:
        (deep / "file").write_bytes(b"")
        opened = [record["path"] for record in tracer.records() if record["operation"] == "open"]
    assert [path.rpartition("/")[2] for path in opened] == ["file"]
    assert opened[0].startswith("…/d/d/")


def test_all_ways_to_read_and_write_are_reported_with_their_bytes(tmp_path: Path, folder: Folder) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    out = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    assert os.write(fd, b"x" * 101) == 101
    assert os.pwrite(fd, b"x" * 103, 0) == 103
    assert os.writev(fd, [b"x" * 100, b"x" * 7]) == 107
    assert os.pwritev(fd, [b"x" * 109], 0) == 109
    assert os.pread(fd, 113, 0) == b"x" * 113
    assert os.preadv(fd, [bytearray(127)], 0) == 127
    assert os.lseek(fd, 0, os.SEEK_SET) == 0
    assert os.readv(fd, [bytearray(131)]) == 131
    os.ftruncate(fd, 137)
    os.lseek(fd, 0, os.SEEK_SET)
    assert os.sendfile(out, fd, 0, 17) == 17
    assert os.copy_file_range(fd, out, 19, 0) == 19
    os.close(fd)
    os.close(out)
    records = folder.records()
    of_file = [record for record in records if record["path"].endswith("/file")]
    assert told(of_file)[1:-1] == [
        ("write", 101),
        ("write", 103),
        ("write", 107),
        ("write", 109),
        ("read", 113),
        ("read", 127),
        ("read", 131),
        ("truncate", 137),
        ("read", 17),
        ("read", 19),
    ]
    assert told(record for record in records if record["path"].endswith("/out"))[1:-1] == [("write", 17), ("write", 19)]


def test_mapping_a_file_reports_what_may_be_done_with_the_memory(tmp_path: Path, folder: Folder) -> None:
    (tmp_path / "file").write_bytes(b"x" * 4096)
    with open(tmp_path / "file", "r+b", buffering=0) as file, mmap.mmap(file.fileno(), 4096, prot=3):
        pass
    records = folder.records()
    (mapped,) = [record for record in records if record["operation"] == "mmap"]
    assert (mapped["protection"], mapped["bytes"]) == (3, 4096)


def test_a_duplicate_is_the_same_file_and_the_last_one_closes_it(tmp_path: Path, folder: Folder) -> None:
    fd = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    copies = [os.dup(fd) for _ in range(TIMES)]
    for copy in [fd, *copies]:
        assert os.write(copy, b"x") == 1
        os.close(copy)
    records = folder.records()
    assert told(records) == [("open", -1), *[("write", 1)] * (TIMES + 1), ("close", -1)]
    assert len({record["file_id"] for record in records}) == 1


def test_what_a_new_descriptor_takes_the_place_of_is_closed(tmp_path: Path, folder: Folder) -> None:
    old = os.open(tmp_path / "old", os.O_WRONLY | os.O_CREAT)
    new = os.open(tmp_path / "new", os.O_WRONLY | os.O_CREAT)
    os.dup2(new, old)
    os.close(new)
    os.write(old, b"x")
    os.close(old)
    records = folder.records()
    assert [(record["operation"], record["path"].rpartition("/")[2]) for record in records] == [
        ("open", "old"),
        ("open", "new"),
        ("close", "old"),
        ("write", "new"),
        ("close", "new"),
    ]


def test_a_file_is_followed_through_fork_exec_and_the_end_of_processes(tmp_path: Path, folder: Folder) -> None:
    script = f"exec 7<>{tmp_path}/file; /bin/echo one >&7; (/bin/echo three >&7); exit 3"
    shell = subprocess.Popen(["/bin/sh", "-c", script])
    shell.wait()
    records = folder.records()
    assert told(records) == [("open", -1), ("write", 4), ("write", 6), ("close", -1)]
    assert len({record["file_id"] for record in records}) == 1
    writers = {record["pid"] for record in records if record["operation"] == "write"}
    assert len(writers) == 2
    assert records[0]["pid"] == records[-1]["pid"] == shell.pid
    assert shell.pid not in writers


def test_a_file_that_is_passed_over_a_socket_stays_the_same(tmp_path: Path, folder: Folder) -> None:
    here, there = socket.socketpair()

    def receive() -> None:
        _, fds, _, _ = socket.recv_fds(there, 1, 1)
        os.write(fds[0], b"x" * SIZE)
        os._exit(0)

    pid = os.fork()
    if not pid:
        receive()
    fd = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    socket.send_fds(here, [b"x"], [fd])
    os.close(fd)
    os.waitpid(pid, 0)
    records = folder.records()
    here.close()
    there.close()
    assert told(records) == [("open", -1), ("write", SIZE), ("close", -1)]
    assert [record["pid"] for record in records] == [os.getpid(), pid, pid]
    assert len({record["file_id"] for record in records}) == 1


def test_what_executing_a_program_closes_is_reported(tmp_path: Path, folder: Folder, shared: Tracer) -> None:
    if "released" not in shared.programs:
        pytest.skip("this kernel does not take a program at the end of a file")

    def deed() -> None:
        # Python has it closed by the next program.
        os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
        os.execv("/bin/true", ["true"])

    pid, _ = deeds.in_child(deed)
    records = folder.records()
    assert told(records) == [("open", -1), ("close", -1)]
    assert {record["pid"] for record in records} == {pid}
    assert len({record["file_id"] for record in records}) == 1


def test_descriptors_that_are_closed_by_range_are_reported(tmp_path: Path, folder: Folder) -> None:
    def deed() -> None:
        fds = [os.open(tmp_path / f"{number}", os.O_WRONLY | os.O_CREAT) for number in range(TIMES)]
        os.dup2(fds[0], fds[-1] + 1)
        deeds.syscall(CLOSE_RANGE, fds[0], fds[-1] + 1, 0)
        os.kill(os.getpid(), signal.SIGKILL)

    pid, _ = deeds.in_child(deed)
    records = [record for record in folder.records() if record["pid"] == pid]
    assert Counter(record["operation"] for record in records) == {"open": TIMES, "close": TIMES}
    assert len({record["file_id"] for record in records}) == TIMES


def test_what_is_open_already_is_followed_once_for_all_its_descriptors(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    copy = os.dup(fd)
    with wanting(tmp_path) as tracer:
        (found,) = [record for record in tracer.at_start if record["path"] == str(tmp_path / "file")]
        os.write(copy, b"x")
        os.close(copy)
        os.close(fd)
        records = tracer.records()
    assert found["operation"] == "is open"
    assert told(records) == [("write", 1), ("close", -1)]
    assert {record["file_id"] for record in records} == {found["file_id"]}


def test_the_path_is_the_one_at_the_time_of_the_event(tmp_path: Path, folder: Folder) -> None:
    with open(tmp_path / "before", "wb", buffering=0) as file:
        os.rename(tmp_path / "before", tmp_path / "after")
        file.write(b"x")
    records = folder.records()
    assert [record["path"].rpartition("/")[2] for record in records] == ["before", "after", "after"]
    assert len({record["file_id"] for record in records}) == 1


def test_users_and_rights_are_those_at_the_time_of_the_event(tmp_path: Path, folder: Folder) -> None:
    def deed() -> None:
        fd = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
        os.setresuid(65534, 65533, 65532)
        os.write(fd, b"x")

    pid, _ = deeds.in_child(deed)
    opened, written, closed = folder.records()
    assert opened["pid"] == written["pid"] == closed["pid"] == pid
    assert (opened["uid"], opened["euid"], opened["suid"]) == (0, 0, 0)
    assert (written["uid"], written["euid"], written["suid"]) == (65534, 65533, 65532)
    assert opened["cap_effective"] != written["cap_effective"] == 0


def test_failures_and_the_end_of_a_file_are_not_reported(tmp_path: Path, folder: Folder) -> None:
    (tmp_path / "file").write_bytes(b"")
    folder.records()
    with pytest.raises(FileNotFoundError):
        os.open(tmp_path / "missing", os.O_RDONLY)
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    assert os.read(fd, 1) == b""
    assert ctypes.CDLL(None).write(fd, b"x", 1) == -1
    os.close(fd)
    records = folder.records()
    assert told(records) == [("open", -1), ("close", -1)]


def test_what_io_uring_does_is_reported(tmp_path: Path, folder: Folder) -> None:
    from tests.bpf.test_trace_open_io_uring import why_no_uring
    from tests.bpf.uring import IOSQE_ASYNC, IOSQE_CQE_SKIP_SUCCESS, OP_READ, OP_WRITE, Request, Uring

    if reason := why_no_uring():
        pytest.skip(f"io_uring: {reason}")
    file = os.fsencode(tmp_path / "file")
    memory = ctypes.create_string_buffer(SIZE)
    at = ctypes.addressof(memory)
    with Uring() as ring:
        (fd,) = ring.open([Request(file, os.O_RDWR | os.O_CREAT, 0o600)])
        assert ring.run([(OP_WRITE, 0, at, 0, SIZE, 0)], fd) == [SIZE]
        assert ring.run([(OP_READ, IOSQE_ASYNC, at, 0, SIZE, 0)], fd) == [SIZE]
        assert ring.run_silently([(OP_WRITE, IOSQE_CQE_SKIP_SUCCESS, at, 0, SIZE, 0)], fd) == {}
    os.close(fd)
    records = folder.records()
    assert told(records) == [("open", -1), ("write", SIZE), ("read", SIZE), ("write", -1), ("close", -1)]
    assert len({record["file_id"] for record in records}) == 1
    assert {record["pid"] for record in records} == {os.getpid()}


def test_a_direct_descriptor_is_followed(tmp_path: Path, folder: Folder) -> None:
    from tests.bpf.test_trace_open_io_uring import why_no_uring
    from tests.bpf.uring import IOSQE_FIXED_FILE, OP_WRITE, Request, Uring

    if reason := why_no_uring():
        pytest.skip(f"io_uring: {reason}")
    with Uring() as ring:
        ring.register_slots(4)
        file = os.fsencode(tmp_path / "file")
        assert ring.open([Request(file, os.O_RDWR | os.O_CREAT, 0o600, slot=3)]) == [0]
        assert ring.run([(OP_WRITE, IOSQE_FIXED_FILE, ring.place(bytes(SIZE)), 0, SIZE, 0)], 2) == [SIZE]
        assert ring.write_silently(2, b"x", flags=IOSQE_FIXED_FILE) == {}
    records = [record for record in folder.records() if record["operation"] != "close"]
    assert told(records) == [("open", -1), ("write", SIZE), ("write", -1)]
    assert len({record["file_id"] for record in records}) == 1
    assert {record["fd"] for record in records} == {-1}


def test_what_io_uring_splices_is_reported(tmp_path: Path, folder: Folder) -> None:
    from tests.bpf.test_trace_open_io_uring import why_no_uring
    from tests.bpf.uring import HERE, OP_SPLICE, Uring

    if reason := why_no_uring():
        pytest.skip(f"io_uring: {reason}")
    (tmp_path / "file").write_bytes(bytes(SIZE))
    folder.records()
    receive, send = os.pipe()
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    with Uring() as ring:
        # The address is where to read from, the last field the descriptor.
        assert ring.run([(OP_SPLICE, 0, 0, HERE, SIZE, 0)], send, slots=[fd]) == [SIZE]
    for number in (fd, receive, send):
        os.close(number)
    assert told(folder.records()) == [("open", -1), ("read", SIZE), ("close", -1)]
