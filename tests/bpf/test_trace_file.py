"""trace file: each call that changes a file, a prime number of times, in all its forms."""

import fcntl
import os
import struct
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agent.kernel import features
from tests.bpf import deeds
from tests.bpf.deeds import AT_FDCWD, syscall
from tests.bpf.tracer import Tracer

pytestmark = pytest.mark.bpf
TIMES = 31
NONE = 2**64 - 1
ENOENT, EBADF, ENOSYS = 2, 9, 38
UNLINKAT, RENAMEAT2, LINKAT, SYMLINKAT, MKDIRAT, MKNODAT, FCHMODAT, FCHOWNAT = (
    (263, 316, 265, 266, 258, 259, 268, 260) if deeds.X86 else (35, 276, 37, 36, 34, 33, 53, 54)
)
FCHMODAT2 = 452
AT_REMOVEDIR = 0x200
X86_ONLY = pytest.mark.skipif(not deeds.X86, reason="arm64 has not got these calls")


def traced(deed: Callable[[], object], **parameters: Any) -> list[dict[str, Any]]:
    """The records of `deed`, run in a child, less those of Python itself."""
    with Tracer("trace_file", **parameters) as tracer:
        pid, code = deeds.in_child(deed)
        records = [record for record in tracer.records() if record["pid"] == pid]
        assert tracer.lost == 0
    assert code == 0
    return records


def told(record: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(record[name] for name in ("operation", "errno", "path", "path_base", "to", "to_base"))


def test_each_call_is_seen_once_with_its_directory(tmp_path: Path) -> None:
    here = str(tmp_path)

    def deed() -> None:
        directory = os.open(tmp_path, os.O_RDONLY)
        os.chdir("/")
        for _ in range(TIMES):
            assert syscall(MKDIRAT, directory, b"a", 0o750) == 0
            assert syscall(MKNODAT, directory, b"b", 0o100640, 0) == 0
            assert syscall(RENAMEAT2, directory, b"b", AT_FDCWD, os.fsencode(tmp_path / "a/c"), 0) == 0
            assert syscall(LINKAT, directory, b"a/c", directory, b"d", 0) == 0
            assert syscall(SYMLINKAT, b"../x", directory, b"e") == 0
            for name in (b"a/c", b"d", b"e"):
                assert syscall(UNLINKAT, directory, name, 0) == 0
            assert syscall(UNLINKAT, directory, b"a", AT_REMOVEDIR) == 0

    records = traced(deed)
    assert [told(record) for record in records] == [
        ("mkdir", 0, "a", here, None, None),
        ("mknod", 0, "b", here, None, None),
        ("rename", 0, "b", here, f"{here}/a/c", None),
        ("link", 0, "d", here, "a/c", here),
        ("symlink", 0, "e", here, "../x", None),
        ("unlink", 0, "a/c", here, None, None),
        ("unlink", 0, "d", here, None, None),
        ("unlink", 0, "e", here, None, None),
        ("rmdir", 0, "a", here, None, None),
    ] * TIMES
    assert [record["mode"] for record in records[:3]] == [0o750, 0o100640, NONE]
    assert {record["size"] for record in records} == {NONE}


@X86_ONLY
def test_the_old_forms_are_seen_too(tmp_path: Path) -> None:
    here = str(tmp_path)

    def deed() -> None:
        os.chdir(tmp_path)
        for _ in range(TIMES):
            assert syscall(83, b"a", 0o700) == 0  # mkdir
            assert syscall(133, b"b", 0o100600, 0) == 0  # mknod
            assert syscall(82, b"b", b"c") == 0  # rename
            assert syscall(86, b"c", b"d") == 0  # link
            assert syscall(88, b"c", b"e") == 0  # symlink
            assert syscall(90, b"c", 0o644) == 0  # chmod
            assert syscall(92, b"c", 1, 2) == 0  # chown
            assert syscall(94, b"e", 3, -1) == 0  # lchown
            for name in (b"c", b"d", b"e"):
                assert syscall(87, name) == 0  # unlink
            assert syscall(84, b"a") == 0  # rmdir

    records = traced(deed)
    names = ["mkdir", "mknod", "rename", "link", "symlink", "chmod", "chown", "chown", *["unlink"] * 3, "rmdir"]
    assert [record["operation"] for record in records] == names * TIMES
    assert [record["path"] for record in records[:12]] == ["a", "b", "b", "d", "e", "c", "c", "e", "c", "d", "e", "a"]
    assert [record["to"] for record in records[2:5]] == ["c", "c", "c"]
    assert [record["to_base"] for record in records[2:5]] == [here, here, None]
    assert {record["path_base"] for record in records} == {here}
    assert records[5]["mode"] == 0o644
    assert [(record["owner"], record["group"]) for record in records[5:8]] == [(NONE, NONE), (1, 2), (3, NONE)]


def test_an_open_file_is_shown_by_its_path(tmp_path: Path) -> None:
    file = tmp_path / "file"

    def deed() -> None:
        fd = os.open(file, os.O_RDWR | os.O_CREAT)
        os.fchmod(fd, 0o600)
        os.fchown(fd, 7, -1)
        os.ftruncate(fd, 12345)

    mode, owner, size = traced(deed)
    for record, operation in ((mode, "chmod"), (owner, "chown"), (size, "truncate")):
        assert told(record)[:4] == (operation, 0, "", str(file))
    assert (mode["mode"], owner["owner"], owner["group"], size["size"]) == (0o600, 7, NONE, 12345)


def test_modes_owners_lengths_and_attributes_are_seen(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    path = os.fsencode(file)

    def deed() -> None:
        assert syscall(FCHMODAT, AT_FDCWD, path, 0o640) == 0
        assert syscall(FCHOWNAT, AT_FDCWD, path, 8, 9, 0) == 0
        os.truncate(file, 7)
        for _ in range(2):
            try:
                os.setxattr(file, "user.name", b"value")
                os.removexattr(file, "user.name")
            except OSError:
                return

    records = traced(deed)
    assert {record["path"] for record in records} == {str(file)}
    mode, owner, size, attribute = records[:4]
    assert (mode["mode"], owner["owner"], owner["group"], size["size"]) == (0o640, 8, 9, 7)
    assert (attribute["operation"], attribute["attribute"]) == ("setxattr", "user.name")


def test_attributes_removed_are_seen_even_when_there_are_none(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()

    def deed() -> None:
        for _ in range(TIMES):
            syscall(197 if deeds.X86 else 14, os.fsencode(file), b"user.none")

    records = traced(deed)
    assert [(record["operation"], record["attribute"]) for record in records] == [("removexattr", "user.none")] * TIMES
    assert all(record["errno"] > 0 for record in records)


def test_a_newer_form_of_chmod_is_seen(tmp_path: Path) -> None:
    with Tracer("trace_file") as tracer:
        if "fchmodat2_ends" not in tracer.programs:
            pytest.skip("this kernel has no fchmodat2")
    (record,) = traced(lambda: syscall(FCHMODAT2, AT_FDCWD, os.fsencode(tmp_path), 0o700, 0))
    assert (record["operation"], record["mode"], record["errno"]) == ("chmod", 0o700, 0)


UTIMENSAT, FALLOCATE, FILE_SETATTR = (280, 285, 469) if deeds.X86 else (88, 47, 469)
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
SETFLAGS, FSSETXATTR = 0x40086602, 0x401C5820
IMMUTABLE, APPEND_ONLY = 1, 2


def test_new_times_are_seen(tmp_path: Path) -> None:
    """By which a program hides that it has changed a file."""
    file = tmp_path / "file"
    file.touch()

    def deed() -> None:
        directory, fd = os.open(tmp_path, os.O_RDONLY), os.open(file, os.O_RDONLY)
        os.chdir("/")
        for _ in range(TIMES):
            assert syscall(UTIMENSAT, directory, b"file", None, 0) == 0
            assert syscall(UTIMENSAT, fd, None, None, 0) == 0
            assert syscall(UTIMENSAT, directory, b"none", None, 0) == -ENOENT

    assert [told(record)[:4] for record in traced(deed)] == [
        ("utime", 0, "file", str(tmp_path)),
        ("utime", 0, "", str(file)),
        ("utime", ENOENT, "none", str(tmp_path)),
    ] * TIMES


@X86_ONLY
def test_the_old_forms_of_new_times_are_seen(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    def deed() -> None:
        os.chdir(tmp_path)
        for call in (132, 235):  # utime, utimes
            assert syscall(call, b"file", None) == 0
        assert syscall(261, AT_FDCWD, b"file", None) == 0  # futimesat

    assert [told(record)[:4] for record in traced(deed)] == [("utime", 0, "file", str(tmp_path))] * 3


def test_holes_and_zeros_in_a_file_are_seen_but_not_what_only_allocates(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(20_000))

    def deed() -> None:
        fd = os.open(file, os.O_RDWR)
        for mode in (0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE):
            syscall(FALLOCATE, fd, mode, 4096, 8192)

    records = traced(deed)
    assert [(record["operation"], record["path_base"], record["size"]) for record in records] == [
        ("fallocate", str(file), 8192)
    ] * 2
    assert records[0]["errno"] == 0


def test_chattr_is_seen_with_the_flags_that_matter(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()

    def change(fd: int, request: int, argument: bytes) -> None:
        with suppress(OSError):  # not all file systems have flags
            fcntl.ioctl(fd, request, argument)

    def deed() -> None:
        fd = os.open(file, os.O_RDONLY)
        for flags in (0x10, 0x20, 0):
            change(fd, SETFLAGS, struct.pack("q", flags))
        for flags in (0x8, 0x10, 0):
            change(fd, FSSETXATTR, struct.pack("I", flags).ljust(28, b"\0"))

    records = traced(deed)
    assert [told(record)[::2] for record in records] == [("chattr", "", None)] * 6
    assert {record["path_base"] for record in records} == {str(file)}
    assert [record["flags"] for record in records] == [IMMUTABLE, APPEND_ONLY, 0] * 2


def test_file_setattr_is_seen(tmp_path: Path) -> None:
    attributes = struct.pack("QIIIII4x", 0x8, 0, 0, 0, 0, 0)[:24]
    path = os.fsencode(tmp_path / "none")
    if syscall(FILE_SETATTR, AT_FDCWD, path, attributes, 24, 0) == -ENOSYS:
        pytest.skip("this kernel has no file_setattr")
    (record,) = traced(lambda: syscall(FILE_SETATTR, AT_FDCWD, path, attributes, 24, 0))
    assert (record["operation"], record["path"], record["flags"]) == ("chattr", str(tmp_path / "none"), IMMUTABLE)
    assert record["errno"] == ENOENT


def test_a_failed_call_says_why(tmp_path: Path) -> None:
    def deed() -> None:
        for _ in range(TIMES):
            syscall(UNLINKAT, AT_FDCWD, b"/not/there", 0)
            syscall(UNLINKAT, 99999, b"x", 0)
            assert syscall(MKDIRAT, AT_FDCWD, os.fsencode(tmp_path / "d"), 0) == 0
            os.rmdir(tmp_path / "d")

    records = traced(deed, failed=True)
    assert [told(record)[:4] for record in records] == [
        ("unlink", ENOENT, "/not/there", None),
        ("unlink", EBADF, "x", None),
    ] * TIMES


def test_a_path_that_cannot_be_read_is_null() -> None:
    (record,) = traced(lambda: syscall(UNLINKAT, AT_FDCWD, 8, 0))
    assert (record["path"], record["errno"]) == (None, 14)


def test_a_path_that_cannot_be_read_passes_every_prefix() -> None:
    (record,) = traced(lambda: syscall(UNLINKAT, AT_FDCWD, 8, 0), path="/elsewhere")
    assert record["path"] is None


def test_only_what_is_asked_for_is_sent(tmp_path: Path) -> None:
    def deed() -> None:
        for name in ("one", "two"):
            os.mkdir(tmp_path / name)
            os.rmdir(tmp_path / name)

    records = traced(deed, operation="rmdir", path=f"{tmp_path}/t")
    assert [told(record)[:3] for record in records] == [("rmdir", 0, f"{tmp_path}/two")]


# What --failed adds.


def test_failed_calls_of_a_full_and_of_a_read_only_file_system_are_seen_by_one_command(tmp_path: Path) -> None:
    def deed() -> None:
        os.unshare(os.CLONE_NEWNS)
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=3", "none", tmp_path], check=True)
        fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
        os.write(fd, bytes(1 << 16))
        pipe, _ = os.pipe()
        for _ in range(TIMES):
            for call in (
                lambda: os.write(fd, b"more"),
                lambda: os.posix_fallocate(fd, 1 << 16, 4096),
                lambda: os.close(os.open(tmp_path / "second", os.O_WRONLY | os.O_CREAT, 0o640)),
                lambda: os.mkdir(tmp_path / "third"),
                # Not shown: neither a change nor an error of the device; and no file.
                lambda: os.open(tmp_path / "none", os.O_RDONLY),
                lambda: os.read(os.open(tmp_path / "file", os.O_WRONLY) and pipe, 0),
            ):
                with suppress(OSError):
                    call()
        subprocess.run(["mount", "-o", "remount,ro", tmp_path], check=False)
        os.close(fd)
        subprocess.run(["umount", "-l", tmp_path], check=True)

    records = [record for record in traced(deed, failed=True) if record["errno"] != ENOENT]
    written = [record for record in records if record["operation"] == "write"]
    assert [(record["errno"], record["path_base"]) for record in written] == [(28, f"{tmp_path}/file")] * TIMES
    allocated = [record for record in records if record["operation"] == "fallocate"]
    assert [(record["errno"], record["size"]) for record in allocated] == [(28, 4096)] * TIMES
    made = [record for record in records if record["operation"] in ("mkdir", "open")]
    assert {record["errno"] for record in made if record["path"] == f"{tmp_path}/third"} == {28}
    assert not [record for record in records if record["path"] == f"{tmp_path}/none"]


def test_opens_that_would_write_to_a_read_only_file_system_are_seen_with_failed(tmp_path: Path) -> None:
    def deed() -> None:
        os.unshare(os.CLONE_NEWNS)
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", tmp_path], check=True)
        for _ in range(TIMES):
            with suppress(OSError):
                os.open(tmp_path / "new", os.O_WRONLY | os.O_CREAT, 0o640)
            with suppress(OSError):
                os.open(tmp_path / "none", os.O_RDONLY)

    for chosen in ({"failed": True}, {"errno": 30}):
        records = [record for record in traced(deed, **chosen) if str(record["path"]).startswith(str(tmp_path))]
        assert [(record["operation"], record["errno"], record["mode"]) for record in records] == [
            ("open", 30, 0o640)
        ] * TIMES


def test_without_failed_no_program_runs_for_reads_and_writes() -> None:
    with Tracer("trace_file") as tracer:
        assert not {"read_ends", "write_ends", "openat_ends"} & set(tracer.programs)


@pytest.mark.skipif(bool(features.lacking("fexit")), reason="this kernel has no fexit")
def test_the_directory_that_refuses_is_named_with_its_owner_and_mode(open_folder: Path) -> None:
    closed = open_folder / "closed"
    closed.mkdir()
    closed.chmod(0o750)

    def deed() -> None:
        os.setgid(65534)
        os.setuid(65534)
        for _ in range(TIMES):
            # The note of another call that was refused does not count.
            os.access(closed / "file", os.R_OK)
            for call in (lambda: os.mkdir(closed / "new"), lambda: os.chmod(open_folder, 0o777)):
                with suppress(OSError):
                    call()

    names = ("operation", "errno", "refused_name", "refused_mode", "refused_owner", "refused_group")
    found = [tuple(record[name] for name in names) for record in traced(deed, failed=True)]
    assert found == [("mkdir", 13, "closed/", 0o750, 0, 0), ("chmod", 1, None, NONE, NONE, NONE)] * TIMES
