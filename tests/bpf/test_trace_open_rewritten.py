"""trace open: path and flags that a program rewrites while the kernel opens the file.

The kernel copies them at once, and then waits for as long as another process holds a lease on the file. A program that
knows this rewrites them meanwhile, so that who reads its memory at the end of the call sees something else.
"""

import ctypes
import fcntl
import mmap
import os
import signal
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bpf import deeds
from tests.bpf.tracer import Tracer

pytestmark = pytest.mark.bpf
DECOY = b"/etc/hostname"
PATH_AT = 64
UNREAD_FLAGS = 2**32 - 1
FLAGS = 1
"""DIFFERS_FLAGS of trace_open.bpf.c."""


def opened(
    tracer: Tracer, path: Path, flags: int, *, memory: mmap.mmap | None = None, meanwhile: Callable[[], object]
) -> list[dict[str, Any]]:
    """Opens `path` by openat2 in a process of its own, which shares `memory` with what runs at the same time."""
    memory = memory or mmap.mmap(-1, 4096)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    put(memory, flags, bytes(path))
    ready, held = os.pipe()

    def holds() -> None:
        """In a process without other threads, which the signal would end."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})
        with path.open("r+") as file:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            os.write(held, b"x")
            # The kernel has read path and flags, and waits.
            signal.sigwait({signal.SIGIO})
            meanwhile()
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)

    def opens() -> None:
        os.read(ready, 1)
        assert deeds.syscall(deeds.OPENAT2, deeds.AT_FDCWD, address + PATH_AT, address, 24) >= 0

    children = [started(deed) for deed in (holds, opens)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    os.close(ready)
    os.close(held)
    return [record for record in tracer.records() if record["pid"] == children[1]]


def started(deed: Callable[[], object]) -> int:
    """A child that does it; its exit code is 1 when it raised an error."""
    child = os.fork()
    if child == 0:
        try:
            deed()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return child


def put(memory: mmap.mmap, flags: int, path: bytes) -> None:
    memory[:24] = struct.pack("<QQQ", flags, 0, 0)
    memory[PATH_AT : PATH_AT + len(path) + 1] = path + b"\0"


def rewritten(tracer: Tracer, path: Path, flags: int, decoy: bytes = DECOY) -> list[dict[str, Any]]:
    """The same; at the end the decoy's path and O_RDONLY stand in its memory."""
    memory = mmap.mmap(-1, 4096)
    return opened(tracer, path, flags, memory=memory, meanwhile=lambda: put(memory, os.O_RDONLY, decoy))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text("secret")
    return file


def test_without_resolve_the_row_says_what_was_rewritten(path: Path) -> None:
    with Tracer("trace_open") as tracer:
        (record,) = rewritten(tracer, path, os.O_WRONLY | os.O_TRUNC)
    assert (record["path"], record["flags"], record["resolved"]) == (os.fsdecode(DECOY), os.O_RDONLY, None)


def test_a_rewritten_path_matches_by_the_file_that_was_opened(path: Path) -> None:
    for prefix in (f"{path.parent}/", str(path), os.fsdecode(DECOY)):
        with Tracer("trace_open", path=prefix, resolve=True) as tracer:
            (record,) = rewritten(tracer, path, os.O_RDONLY)
        assert (record["path"], record["resolved"]) == (os.fsdecode(DECOY), str(path))


@pytest.mark.parametrize("other", ["/secret", "{path}/", "{path}s", "{parent}/s/", "/", "{parent}s"])
def test_other_prefixes_do_not_match(path: Path, other: str) -> None:
    prefix = other.format(path=path, parent=path.parent)
    with Tracer("trace_open", path=prefix, resolve=True) as tracer:
        records = rewritten(tracer, path, os.O_RDONLY, decoy=b"../elsewhere")
    assert len(records) == (prefix == "/")


def test_rewritten_flags_match_by_how_the_file_is_open(path: Path) -> None:
    with Tracer("trace_open", write=True, resolve=True) as tracer:
        (record,) = rewritten(tracer, path, os.O_WRONLY | os.O_TRUNC)
        assert not path.read_text()
        assert (record["flags"], record["opened_flags"], record["differs"]) == (os.O_RDONLY, os.O_WRONLY, FLAGS)
        assert rewritten(tracer, path, os.O_RDONLY) == []


def test_flags_that_were_not_rewritten_do_not_differ(path: Path) -> None:
    with Tracer("trace_open", resolve=True) as tracer:
        _, code = deeds.in_child(lambda: [deeds.openat2(bytes(path), flags) for flags in (os.O_RDWR, os.O_PATH | 2)])
        records = [record for record in tracer.records() if record["path"] == str(path)]
    assert code == 0
    assert [record["differs"] for record in records] == [0, 0]


@pytest.mark.parametrize("depth", [1, 40])
def test_the_prefix_of_a_deep_path_matches(tmp_path: Path, depth: int) -> None:
    folder = tmp_path.joinpath(*["name"] * depth)
    folder.mkdir(parents=True)
    file = folder / ("f" * 255)
    file.touch()
    for length in (len(str(tmp_path)) + 3, 254):
        with Tracer("trace_open", path=str(file)[:length], resolve=True, pid=os.getpid()) as tracer:
            here = os.open(folder, os.O_PATH)
            deeds.close_if_open(os.open(file.name, os.O_RDONLY, dir_fd=here))
            os.close(here)
            assert str(file) in [record["resolved"] for record in tracer.records()], length


def test_memory_that_is_gone_at_the_end_hides_nothing(path: Path, tmp_path: Path) -> None:
    """The path and the flags lie in a file, which is emptied while the kernel waits."""
    with (tmp_path / "memory").open("w+b") as file:
        file.truncate(4096)
        memory = mmap.mmap(file.fileno(), 4096)
        for parameters in ({"path": str(path)}, {"write": True, "resolve": True}):
            with Tracer("trace_open", **parameters) as tracer:
                (record,) = opened(tracer, path, os.O_RDWR, memory=memory, meanwhile=lambda: file.truncate(0))
            assert record["path"] is None
            file.truncate(4096)


@pytest.mark.parametrize("options", [{}, {"write": True}, {"path": "/elsewhere"}, {"resolve": True}])
def test_memory_that_is_taken_away_hides_nothing(path: Path, options: dict[str, Any]) -> None:
    file = os.memfd_create("gone")
    os.ftruncate(file, 4096)
    memory = mmap.mmap(file, 4096)
    with Tracer("trace_open", **options) as tracer:
        (record,) = opened(tracer, path, os.O_WRONLY, memory=memory, meanwhile=lambda: os.ftruncate(file, 0))
    os.close(file)
    assert (record["path"], record["flags"], record["errno"]) == (None, UNREAD_FLAGS, 0)
    assert (record["opened_flags"], record["differs"]) == (
        (os.O_WRONLY, 0) if options.get("resolve") else (UNREAD_FLAGS, 0)
    )
