"""trace open: does known things a prime number of times, and counts what was seen."""

import os
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.bpf import deeds
from tests.bpf.tracer import Tracer

pytestmark = pytest.mark.bpf
TIMES = 101
PATH_MAX = 4096
only_x86 = pytest.mark.skipif(not deeds.X86, reason="arm64 has no open and no creat")


@pytest.fixture
def path(tmp_path: Path) -> bytes:
    """A file that no other process knows of."""
    file = tmp_path / uuid.uuid4().hex
    file.touch()
    return os.fsencode(file)


def of(path: bytes, tracer: Tracer) -> list[dict[str, Any]]:
    """The records of opens of `path`."""
    return [record for record in tracer.records() if record["path"] == os.fsdecode(path)]


def one(path: bytes, tracer: Tracer) -> dict[str, Any]:
    (record,) = of(path, tracer)
    return record


def test_each_openat_is_seen_once(path: bytes) -> None:
    with Tracer("trace_open") as tracer:
        for _ in range(TIMES):
            deeds.openat(path, os.O_RDONLY)
        assert len(of(path, tracer)) == TIMES
        assert tracer.lost == 0


def test_each_openat2_is_seen_once(path: bytes) -> None:
    with Tracer("trace_open") as tracer:
        for _ in range(TIMES):
            deeds.openat2(path, os.O_RDONLY)
        assert len(of(path, tracer)) == TIMES


@only_x86
def test_each_open_and_creat_is_seen_once(path: bytes) -> None:
    with Tracer("trace_open") as tracer:
        for _ in range(TIMES):
            deeds.open_(path, os.O_RDONLY)
            deeds.creat(path, 0o600)
        assert len(of(path, tracer)) == 2 * TIMES


def test_each_open_by_handle_is_seen_once_and_has_no_path() -> None:
    file = Path("/dev/shm") / uuid.uuid4().hex
    file.touch()
    try:
        with Tracer("trace_open", pid=os.getpid(), resolve=True) as tracer:
            for _ in range(TIMES):
                assert deeds.open_by_handle_at(file, os.O_RDONLY) >= 0
            records = [record for record in tracer.records() if record["path"] is None]
    finally:
        file.unlink()
    assert [record["resolved"] for record in records] == [str(file)] * TIMES


def test_a_record_has_its_process(path: bytes) -> None:
    with Tracer("trace_open") as tracer:
        fd = deeds.openat(path, os.O_RDONLY)
        record = one(path, tracer)
    assert record["fd"] == fd
    assert record["errno"] == 0
    assert (record["pid"], record["ppid"], record["tid"]) == (os.getpid(), os.getppid(), os.getpid())
    assert (record["uid"], record["gid"]) == (os.getuid(), os.getgid())
    assert record["comm"] == Path("/proc/self/comm").read_text().strip()
    assert record["parent_comm"] == Path(f"/proc/{os.getppid()}/comm").read_text().strip()


def test_a_record_bears_the_time_of_the_open(path: bytes) -> None:
    import time

    with Tracer("trace_open") as tracer:
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        deeds.openat(path, os.O_RDONLY)
        after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        assert before < one(path, tracer)["timestamp"] < after


def test_flags_and_mode_are_those_of_the_caller(path: bytes) -> None:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    with Tracer("trace_open") as tracer:
        deeds.openat(path, flags, 0o640)
        deeds.openat2(path, flags, 0o604)
        first, second = of(path, tracer)
    assert (first["flags"], first["mode"]) == (flags, 0o640)
    assert (second["flags"], second["mode"]) == (flags, 0o604)


@only_x86
def test_creat_has_the_flags_that_it_stands_for(path: bytes) -> None:
    with Tracer("trace_open") as tracer:
        deeds.creat(path, 0o711)
        record = one(path, tracer)
    assert (record["flags"], record["mode"]) == (os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o711)


def test_what_lies_in_the_mode_of_an_open_that_creates_nothing_is_not_shown(path: bytes) -> None:
    with Tracer("trace_open") as tracer:
        deeds.openat(path, os.O_RDONLY, 0o123)
        assert one(path, tracer)["mode"] == 0


def test_a_failed_open_has_the_errno_and_no_fd() -> None:
    path = f"/{uuid.uuid4().hex}".encode()
    with Tracer("trace_open") as tracer:
        assert deeds.openat(path, os.O_RDONLY) == -2
        record = one(path, tracer)
    assert (record["errno"], record["fd"], record["resolved"]) == (2, -1, None)


def test_failed_drops_what_succeeds_in_the_kernel(path: bytes) -> None:
    with Tracer("trace_open", failed=True, pid=os.getpid()) as tracer:
        for _ in range(TIMES):
            deeds.openat(path, os.O_RDONLY)
            deeds.openat(path + b"-not-there", os.O_RDONLY)
        records = tracer.records()
    assert [record["errno"] for record in records] == [2] * TIMES


def test_errno_drops_other_results_in_the_kernel(path: bytes) -> None:
    with Tracer("trace_open", errno=20, pid=os.getpid()) as tracer:
        for _ in range(TIMES):
            deeds.openat(path, os.O_RDONLY)
            deeds.openat(path + b"-not-there", os.O_RDONLY)
            deeds.openat(path + b"/no-directory", os.O_RDONLY)
        assert [record["errno"] for record in tracer.records()] == [20] * TIMES


def test_pid_drops_other_processes_in_the_kernel(path: bytes) -> None:
    with Tracer("trace_open", pid=os.getpid()) as tracer:
        pid, _ = deeds.in_child(lambda: deeds.openat(path, os.O_RDONLY))
        assert pid != os.getpid()
        deeds.openat(path, os.O_RDONLY)
        assert {record["pid"] for record in tracer.records()} == {os.getpid()}


def test_comm_drops_other_names_in_the_kernel(path: bytes) -> None:
    def renamed() -> None:
        Path("/proc/self/comm").write_text("exactly15bytes!")
        deeds.openat(path, os.O_RDONLY)

    with Tracer("trace_open", comm="exactly15bytes!") as tracer:
        deeds.openat(path, os.O_RDONLY)
        deeds.in_child(renamed)
        records = tracer.records()
    assert {record["comm"] for record in records} == {"exactly15bytes!"}
    assert len([record for record in records if record["path"] == os.fsdecode(path)]) == 1


def test_what_is_left_of_a_longer_name_does_not_hide_a_process(path: bytes) -> None:
    def renamed_twice() -> None:
        for name in ("exactly15bytes!", "short"):
            Path("/proc/self/comm").write_text(name)
        deeds.openat(path, os.O_RDONLY)

    with Tracer("trace_open", comm="short") as tracer:
        deeds.in_child(renamed_twice)
        assert len(of(path, tracer)) == 1


@pytest.mark.parametrize("uid", [0, 65534])
def test_uid_drops_other_users_in_the_kernel(uid: int) -> None:
    path = f"/{uuid.uuid4().hex}".encode()

    def as_nobody() -> None:
        os.setuid(65534)
        deeds.openat(path, os.O_RDONLY)

    with Tracer("trace_open", uid=uid) as tracer:
        deeds.openat(path, os.O_RDONLY)
        deeds.in_child(as_nobody)
        records = tracer.records()
    assert {record["uid"] for record in records} == {uid}
    assert len([record for record in records if record["path"] == os.fsdecode(path)]) == 1


def test_path_drops_other_beginnings_in_the_kernel() -> None:
    name = uuid.uuid4().hex
    with Tracer("trace_open", path=f"/{name}/a", pid=os.getpid()) as tracer:
        for end in ("a", "ab", "a/b", "", "b", "A"):
            deeds.openat(f"/{name}/{end}".encode(), os.O_RDONLY)
        deeds.openat(f"/{name}".encode(), os.O_RDONLY)
        paths = [record["path"] for record in tracer.records()]
    assert paths == [f"/{name}/a", f"/{name}/ab", f"/{name}/a/b"]


def test_a_path_filter_may_be_as_long_as_its_variable() -> None:
    prefix = "/" + "p" * 255
    with Tracer("trace_open", path=prefix, pid=os.getpid()) as tracer:
        deeds.openat(prefix.encode() + b"x", os.O_RDONLY)
        deeds.openat(prefix[:-1].encode() + b"q", os.O_RDONLY)
        assert [record["path"] for record in tracer.records()] == [prefix + "x"]


def test_the_longest_path_is_whole() -> None:
    path = b"no-such-file".rjust(PATH_MAX - 1, b"/")
    with Tracer("trace_open", pid=os.getpid()) as tracer:
        deeds.openat(path, os.O_RDONLY)
        assert one(path, tracer)["errno"] == 2
        assert tracer.cut == 0


def test_a_path_that_is_too_long_is_cut_and_says_so() -> None:
    with Tracer("trace_open", pid=os.getpid()) as tracer:
        deeds.openat(b"/" * 5000, os.O_RDONLY)
        (record,) = [record for record in tracer.records() if record["errno"] == 36]
        assert record["path"] == "/" * (PATH_MAX - 1) + "…"
        assert tracer.cut == 1


def test_a_path_at_a_bad_address_is_not_invented() -> None:
    with Tracer("trace_open", pid=os.getpid(), failed=True) as tracer:
        assert deeds.openat(1, os.O_RDONLY) == -14
        (record,) = tracer.records()
    assert (record["path"], record["errno"]) == (None, 14)


def test_an_empty_path_is_empty_and_not_unread() -> None:
    with Tracer("trace_open", pid=os.getpid(), failed=True) as tracer:
        deeds.openat(b"", os.O_RDONLY)
        (record,) = tracer.records()
    assert record["path"] == ""


def test_a_record_takes_no_more_than_its_texts_need(path: bytes) -> None:
    with Tracer("trace_open", pid=os.getpid()) as tracer:
        deeds.openat(path, os.O_RDONLY)
        assert one(path, tracer)["record_bytes"] == tracer.gadget.record.size + len(path)


def test_a_full_ring_is_counted(path: bytes) -> None:
    with Tracer("trace_open", pid=os.getpid(), ring_bytes=4096) as tracer:
        for _ in range(TIMES):
            deeds.openat(path, os.O_RDONLY)
        assert len(of(path, tracer)) + tracer.lost == TIMES
        assert tracer.lost > 0


def test_only_what_may_write_is_seen_with_write(tmp_path: Path) -> None:
    file = os.fsencode(tmp_path / "file")
    writes = [os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_CREAT, os.O_WRONLY | os.O_TRUNC]

    def deed() -> None:
        deeds.openat(file, os.O_WRONLY | os.O_CREAT, 0o600)
        for _ in range(3):
            for flags in [os.O_RDONLY, os.O_RDONLY | os.O_CLOEXEC, *writes]:
                deeds.openat(file, flags, 0o600)

    with Tracer("trace_open", write=True) as tracer:
        pid, _ = deeds.in_child(deed)
        seen = [record["flags"] for record in tracer.records() if record["pid"] == pid]
    assert [flags for flags in seen if flags not in writes] == [os.O_WRONLY | os.O_CREAT]
    assert len(seen) == 1 + 3 * len(writes)


@pytest.mark.parametrize("resolve", [False, True])
def test_unique_shows_each_file_and_way_to_open_it_once(path: bytes, resolve: bool) -> None:
    with Tracer("trace_open", unique=True, resolve=resolve) as tracer:
        for _ in range(TIMES):
            deeds.openat(path, os.O_RDONLY)
            deeds.openat(path, os.O_WRONLY)
        assert [record["flags"] & os.O_ACCMODE for record in of(path, tracer)] == [os.O_RDONLY, os.O_WRONLY]


def test_what_path_drops_is_still_new_for_unique(path: bytes) -> None:
    def deed() -> None:
        os.chdir(os.path.dirname(path))
        deeds.openat(os.path.basename(path), os.O_RDONLY)
        deeds.openat(path, os.O_RDONLY)

    with Tracer("trace_open", unique=True, path=path) as tracer:
        deeds.in_child(deed)
        assert len(of(path, tracer)) == 1


def test_flags_with_all_bits_hide_no_open_for_unique(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    with Tracer("trace_open", unique=True) as tracer:
        for flags in (0xFFFFFFFF, 0xFFFFFFFF):
            deeds.openat(folder, flags)
        for _ in range(2):
            deeds.openat2(folder, os.O_RDONLY | os.O_DIRECTORY)
        assert [record["flags"] for record in of(folder, tracer)].count(os.O_RDONLY | os.O_DIRECTORY) == 1


def test_what_a_full_ring_loses_is_still_new_for_unique(tmp_path: Path) -> None:
    names = [os.fsencode(tmp_path / f"file-{number}") for number in range(TIMES)]
    for name in names:
        Path(os.fsdecode(name)).touch()
    with Tracer("trace_open", unique=True, pid=os.getpid(), ring_bytes=4096) as tracer:
        for name in names:
            deeds.openat(name, os.O_RDONLY)
        shown = [record["path"] for record in tracer.records()]
        assert tracer.lost > 0
        for name in names:
            deeds.openat(name, os.O_RDONLY)
            shown += [record["path"] for record in tracer.records()]
    assert sorted(path for path in shown if path in map(os.fsdecode, names)) == sorted(map(os.fsdecode, names))


def test_unique_shows_every_failed_attempt(path: bytes) -> None:
    with Tracer("trace_open", unique=True) as tracer:
        for _ in range(3):
            deeds.openat(path + b"-none", os.O_RDONLY)
        assert len(of(path + b"-none", tracer)) == 3


def test_a_file_that_takes_the_name_of_another_is_a_new_one_for_unique(path: bytes) -> None:
    other = path + b"-other"
    Path(os.fsdecode(other)).touch()
    with Tracer("trace_open", unique=True) as tracer:
        deeds.openat(path, os.O_RDONLY)
        os.rename(other, path)
        deeds.openat(path, os.O_RDONLY)
        assert len(of(path, tracer)) == 2


def test_a_link_that_leads_elsewhere_now_is_a_new_file_for_unique(path: bytes) -> None:
    link, other = path + b"-link", path + b"-other"
    Path(os.fsdecode(other)).touch()
    with Tracer("trace_open", unique=True) as tracer:
        for target in (path, other):
            os.symlink(target, link)
            deeds.openat(link, os.O_RDONLY)
            os.unlink(link)
        assert len(of(link, tracer)) == 2


def test_a_renamed_file_is_a_new_one_for_unique(path: bytes) -> None:
    renamed = path + b"-renamed"
    with Tracer("trace_open", unique=True) as tracer:
        deeds.openat(path, os.O_RDONLY)
        os.rename(path, renamed)
        deeds.openat(renamed, os.O_RDONLY)
        assert len(of(renamed, tracer)) == 1


def test_a_program_that_the_process_executes_opens_anew_for_unique(path: bytes) -> None:
    def deed() -> None:
        deeds.openat(path, os.O_RDONLY)
        os.execv("/bin/cat", ["cat", os.fsdecode(path)])

    with Tracer("trace_open", unique=True) as tracer:
        deeds.in_child(deed)
        assert len(of(path, tracer)) == 2
