"""trace fsslower: files of this process without a lower limit, and a pipe that is slow for sure."""

import ctypes
import errno
import os
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agent.containers.tracking import Containers
from kubectl_gadget.agent.kernel import features
from kubectl_gadget.gadgets.load import load_gadget
from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.rows.batch import decode
from kubectl_gadget.rows.rows import Rows
from tests.bpf.deeds import syscall
from tests.bpf.tracer import MACHINE, kept
from tests.bpf.uring import HERE, IOSQE_FIXED_FILE, OP_READV, OP_WRITE, Request, Uring
from tests.vm.check import attached, program_fds

pytestmark = pytest.mark.bpf
TIMES = 11
SLOW = 0.05
OPEN_HOW = 24


def traced(deed: Callable[[], object], under: Path | None = None, **parameters: Any) -> list[dict[str, Any]]:
    """The rows of a deed of this process, about files below a directory."""
    tracer = kept("trace_fsslower", pid=os.getpid(), **{"min": 0, **parameters})
    lost = tracer.lost
    deed()
    data = tracer.data()
    assert tracer.lost == lost
    batch = decode(load_gadget("trace_fsslower"), "node", data, architecture=MACHINE)
    rows = MemberRows().records(Rows([batch]))
    return [row for row in rows if under is None or str(row["path"]).startswith(f"{under}/")]


def told(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["operation"], row["bytes"], row["offset"], row["error"], Path(row["path"]).name


def test_each_access_is_reported_with_its_place_and_length(tmp_path: Path) -> None:
    def deed() -> None:
        fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
        for _ in range(TIMES):
            os.write(fd, b"x" * 100)
        os.fsync(fd)
        for place in range(TIMES):
            os.pread(fd, 70, place * 100)
        os.lseek(fd, 30, os.SEEK_SET)
        os.readv(fd, [bytearray(20), bytearray(20)])
        os.pwritev(fd, [b"yy"], 1000)
        os.close(fd)

    rows = traced(deed, tmp_path)
    assert [told(row) for row in rows] == [
        ("open", None, None, "", "file"),
        *(("write", 100, place * 100, "", "file") for place in range(TIMES)),
        ("fsync", None, None, "", "file"),
        *(("read", 70, place * 100, "", "file") for place in range(TIMES)),
        ("read", 40, 30, "", "file"),
        ("write", 2, 1000, "", "file"),
    ]
    assert all(row["duration"] > 0 for row in rows)
    assert {row["path"] for row in rows} == {f"{tmp_path}/file"}


def test_an_open_that_fails_is_reported_by_the_name_that_was_asked_for(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)

    def deed() -> None:
        for path in (tmp_path / "none", Path("none")):
            syscall(257 if MACHINE == "x86_64" else 56, directory, os.fsencode(path), 0)

    rows = traced(deed, operation="open")
    assert [told(row) for row in rows] == [("open", None, None, "ENOENT", "none")] * 2
    assert {row["path"] for row in rows} == {f"{tmp_path}/none"}
    os.close(directory)


def test_the_kernels_own_functions_are_followed_where_it_has_fexit() -> None:
    if why := features.lacking("fexit"):
        pytest.skip(why)
    containers = Containers()
    with attached("trace_fsslower", containers) as gadget:
        assert "vfs_read_ends" in program_fds(gadget)
    containers.close()


def test_only_what_failed_is_reported_when_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "there").touch()

    def deed() -> None:
        for name in ("there", "none") * TIMES:
            fd = syscall(257 if MACHINE == "x86_64" else 56, -100, os.fsencode(tmp_path / name), 0)
            if fd >= 0:
                os.close(fd)

    for chosen in ({"failed": True}, {"errno": errno.ENOENT}):
        rows = traced(deed, tmp_path, operation="open", **chosen)
        assert [told(row) for row in rows] == [("open", None, None, "ENOENT", "none")] * TIMES


def test_only_what_takes_longer_is_reported_and_pipes_only_when_asked() -> None:
    receive, send = os.pipe()

    def write_later() -> None:
        time.sleep(SLOW)
        os.write(send, b"late")

    def deed() -> None:
        late = threading.Thread(target=write_later)
        late.start()
        os.read(receive, 10)
        late.join()

    slow = {"min": int(SLOW * 1e6) // 2}
    assert traced(deed, **slow) == []
    (row,) = traced(deed, all_files=True, **slow)
    assert (row["operation"], row["bytes"]) == ("read", 4)
    assert row["duration"] >= SLOW * 1e9 / 2
    os.close(receive)
    os.close(send)


@pytest.mark.parametrize("in_worker", [False, True])
def test_what_io_uring_does_is_reported_with_its_place_and_length(tmp_path: Path, in_worker: bool) -> None:
    path = os.fsencode(tmp_path / "file")
    memory = ctypes.create_string_buffer(40)
    vector = ctypes.create_string_buffer(struct.pack("<QQ", ctypes.addressof(memory), 40), 16)

    def deed() -> None:
        with Uring() as uring:
            (fd,) = uring.open([Request(path, os.O_RDWR | os.O_CREAT, 0o600, in_worker=in_worker)])
            for _ in range(TIMES):
                assert uring.write(fd, b"x" * 100, in_worker) == 100
            assert uring.run([(OP_WRITE, 0, ctypes.addressof(memory), HERE, 30, 0)] * 2, fd) == [30, 30]
            assert uring.fsync(fd) == 0
            assert uring.run([(OP_READV, 0, ctypes.addressof(vector), 7, 1, 0)], fd) == [40]
            assert uring.open([Request(path + b"-none")]) == [-errno.ENOENT]
            os.close(fd)

    rows = traced(deed, tmp_path)
    moved = [row for row in rows if row["operation"] in ("write", "read")]
    assert [told(row) for row in moved] == [
        *[("write", 100, 0, "", "file")] * TIMES,
        ("write", 30, 0, "", "file"),
        ("write", 30, 30, "", "file"),
        ("read", 40, 7, "", "file"),
    ]
    # The kernel's own functions may open twice, first without waiting.
    others = [told(row) for row in rows if row not in moved and row["error"] != "EAGAIN"]
    assert others == [
        ("open", None, None, "", "file"),
        ("fsync", None, None, "", "file"),
        ("open", None, None, "ENOENT", "file-none"),
    ]
    assert {row["pid"] for row in rows} == {os.getpid()}
    assert all(row["duration"] > 0 for row in rows)


def test_a_slow_read_of_io_uring_is_reported_and_a_fast_one_is_not() -> None:
    receive, send = os.pipe()

    def deed() -> None:
        with Uring() as uring:
            late = threading.Timer(SLOW, os.write, (send, b"late"))
            late.start()
            assert uring.read(receive, 10) == 4
            late.join()
            os.write(send, b"at once")
            assert uring.read(receive, 10) == 7

    (row,) = traced(deed, all_files=True, min=int(SLOW * 1e6) // 2)
    assert (row["operation"], row["bytes"]) == ("read", 4)
    assert row["duration"] >= SLOW * 1e9 / 2
    os.close(receive)
    os.close(send)


def test_a_direct_descriptor_is_reported_with_its_path(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "file")

    def deed() -> None:
        with Uring() as uring:
            uring.register_slots(4)
            assert uring.open([Request(path, os.O_RDWR | os.O_CREAT, 0o600, slot=3)]) == [0]
            assert uring.run([(OP_WRITE, IOSQE_FIXED_FILE, uring.place(b"direct"), 0, 6, 0)], 2) == [6]

    rows = traced(deed, tmp_path)
    assert [told(row) for row in rows if row["error"] != "EAGAIN"] == [
        ("open", None, None, "", "file"),
        ("write", 6, 0, "", "file"),
    ]


def test_failures_are_shown_however_short_they_are_unless_a_duration_is_given(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path], check=True)

    def deed() -> None:
        fd = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
        os.pwrite(fd, bytes(1 << 16), 0)
        for _ in range(TIMES):
            with suppress(OSError):
                os.pwrite(fd, b"x", 1 << 20)
        os.close(fd)

    try:
        for chosen in ({"failed": True}, {"errno": errno.ENOSPC}):
            rows = traced(deed, tmp_path, **{"min": 2**64 - 1, **chosen})
            assert [told(row) for row in rows] == [("write", None, None, "ENOSPC", "file")] * TIMES
        assert traced(deed, tmp_path, failed=True, min=10_000_000) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)
