"""Delays by FUSE (docs/evasions.md): a container mounts a file system whose server makes the kernel wait in the middle
of a call, for as long as it likes, whatever file the call is about in the end.
"""

import ctypes
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bpf import deeds, fuse
from tests.bpf.tracer import Tracer

pytestmark = pytest.mark.bpf
DECOY = "/etc/hostname"
UNLINKAT = 263 if deeds.X86 else 35


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text("secret")
    return file


@contextmanager
def held(call: Callable[[int], int], path: Path, server: fuse.Server) -> Iterator[list[int]]:
    """Makes a call with the address of `path`, and lets it go on at the end, when the memory has the decoy. The call's
    result comes into the list then."""
    memory = ctypes.create_string_buffer(bytes(path), mmap.PAGESIZE)
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(call(ctypes.addressof(memory))))
    thread.start()
    try:
        server.wait()
        memory.value = DECOY.encode()
        yield results
    finally:
        server.release()
        thread.join()


def opens(path: int) -> int:
    return deeds.openat(path, os.O_RDONLY)


def unlinks(path: int) -> int:
    return deeds.syscall(UNLINKAT, deeds.AT_FDCWD, path, 0)


@pytest.fixture
def link(tmp_path: Path, secret: Path) -> Iterator[tuple[Path, fuse.Server]]:
    """A symbolic link to the secret, in a file system that does not say at once where it leads."""
    with fuse.mounted(tmp_path / "mount", {"link": secret}, {fuse.READLINK}) as server:
        yield tmp_path / "mount" / "link", server


def test_an_open_that_fuse_delays_while_its_path_is_rewritten_matches_by_the_file(
    link: tuple[Path, fuse.Server], secret: Path
) -> None:
    with Tracer("trace_open", pid=os.getpid(), path=str(secret), resolve=True) as tracer:
        with held(opens, *link) as results:
            pass
        (record,) = tracer.records()
    assert results[0] >= 0
    assert (record["path"], record["resolved"]) == (DECOY, str(secret))


def test_without_resolve_the_row_says_what_was_rewritten(link: tuple[Path, fuse.Server]) -> None:
    with Tracer("trace_open", pid=os.getpid()) as tracer:
        with held(opens, *link):
            pass
        assert [(record["path"], record["resolved"]) for record in tracer.records()] == [(DECOY, None)]


def test_a_call_that_is_held_back_holds_no_others_back(link: tuple[Path, fuse.Server], secret: Path) -> None:
    """Its own row comes when it returns, since only then its result is known."""
    with Tracer("trace_open", pid=os.getpid()) as tracer:
        with held(opens, *link):
            for _ in range(13):
                secret.read_text()
            assert [record["path"] for record in tracer.records()] == [str(secret)] * 13
        (late,) = tracer.records()
    assert late["path"] == DECOY


def test_a_name_that_is_removed_after_a_delay_is_shown_as_it_was_rewritten(tmp_path: Path) -> None:
    """This stays open, as with other delays."""
    (tmp_path / "folder").mkdir()
    file = tmp_path / "folder" / "file"
    file.touch()
    with (
        fuse.mounted(tmp_path / "mount", {"folder": file.parent}, {fuse.READLINK}) as server,
        Tracer("trace_file", pid=os.getpid()) as tracer,
    ):
        with held(unlinks, tmp_path / "mount" / "folder" / "file", server) as results:
            pass
        (record,) = (one for one in tracer.records() if one["operation"] == "unlink")
    assert results == [0]
    assert not file.exists()
    assert (record["path"], record["errno"]) == (DECOY, 0)
