"""trace fsslower: files of this process with nothing too fast to be told, and a pipe that is slow for sure."""

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agent.bpf import features
from kubectl_gadget.agent.containers.tracking import Containers
from kubectl_gadget.catalogue.load import load_gadget
from kubectl_gadget.events.batch import decode
from kubectl_gadget.events.rows import Rows
from kubectl_gadget.views.rows import MemberRows
from tests.bpf.deeds import syscall
from tests.bpf.tracer import MACHINE, Tracer
from tests.vm.check import attached

pytestmark = pytest.mark.bpf
TIMES = 11
SLOW = 0.05
OPEN_HOW = 24


def traced(deed: Callable[[], object], under: Path | None = None, **parameters: Any) -> list[dict[str, Any]]:
    """The rows of a deed of this process, about files below a directory."""
    with Tracer("trace_fsslower", pid=os.getpid(), **{"min": 0, **parameters}) as tracer:
        deed()
        data = tracer.data()
        assert tracer.lost == 0
    batch = decode(load_gadget("trace_fsslower"), "node", data, architecture=MACHINE)
    rows = MemberRows().records(Rows([batch]))
    return [row for row in rows if under is None or str(row["path"]).startswith(f"{under}/")]


def told(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["operation"], row["bytes"], row["offset"], row["error"], Path(row["path"]).name


def test_each_access_is_told_with_its_place_and_length(tmp_path: Path) -> None:
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


def test_an_open_that_fails_is_told_by_the_name_that_was_asked_for(tmp_path: Path) -> None:
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
        assert "vfs_read_ends" in gadget.program_fds()
    containers.close()


def test_only_what_failed_is_told_when_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "there").touch()

    def deed() -> None:
        for name in ("there", "none") * TIMES:
            fd = syscall(257 if MACHINE == "x86_64" else 56, -100, os.fsencode(tmp_path / name), 0)
            if fd >= 0:
                os.close(fd)

    for chosen in ({"failed": True}, {"errno": errno.ENOENT}):
        rows = traced(deed, tmp_path, operation="open", **chosen)
        assert [told(row) for row in rows] == [("open", None, None, "ENOENT", "none")] * TIMES


def test_only_what_takes_longer_is_told_and_pipes_only_when_asked() -> None:
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
