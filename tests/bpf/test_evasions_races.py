"""Ways to make a call do something else than what its arguments say when it returns (docs/evasions.md, "What the call
really did"): a descriptor that is exchanged or given by another process, and names that are rewritten while the kernel
waits. Leases, and flags, are tried in test_trace_open_rewritten.py.
"""

import ctypes
import fcntl
import mmap
import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.bpf import deeds
from tests.bpf.tracer import Tracer

pytestmark = pytest.mark.bpf
TIMES = 2003
PAGE = mmap.PAGESIZE
USERFAULTFD = 323 if deeds.X86 else 282
UFFDIO_API, UFFDIO_REGISTER, UFFDIO_COPY = 0xC018AA3F, 0xC020AA00, 0xC028AA03
SECCOMP = 317 if deeds.X86 else 277
SYMLINKAT = 266 if deeds.X86 else 36
NEW_LISTENER, USER_NOTIFICATION, ALLOW = 8, 0x7FC00000, 0x7FFF0000
NOTIF_RECV, NOTIF_ADDFD, ADDFD_SEND = 0xC0502100, 0x40182103, 2


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text("secret")
    return file


@pytest.fixture
def decoy(tmp_path: Path) -> Path:
    file = tmp_path / "decoy"
    file.write_text("decoy")
    return file


def resolved(tracer: Tracer, *paths: Path) -> list[tuple[str, str, int]]:
    wanted = set(map(str, paths))
    return [
        (record["path"], record["resolved"], record["tid"])
        for record in tracer.records()
        if {record["path"], record["resolved"]} & wanted
    ]


def test_a_descriptor_that_a_thread_exchanges_hides_no_open(secret: Path, decoy: Path) -> None:
    """It is luck whether the thread is fast enough; the row then has the other file's path, and the name as it was
    written still matches."""
    other = os.open(decoy, os.O_RDONLY)
    number = os.open(secret, os.O_RDONLY)
    os.close(number)
    ended = threading.Event()

    def exchanges() -> None:
        while not ended.is_set():
            with suppress(OSError):  # the number is being given to the open
                os.dup2(other, number, inheritable=False)

    with Tracer("trace_open", path=str(secret), resolve=True, pid=os.getpid()) as tracer:
        thread = threading.Thread(target=exchanges)
        thread.start()
        for _ in range(TIMES):
            with suppress(OSError):
                os.close(number)
            fd = deeds.syscall(deeds.OPENAT, deeds.AT_FDCWD, bytes(secret), os.O_RDONLY)
            if fd != number:
                os.close(fd)
        ended.set()
        thread.join()
        rows = resolved(tracer, secret)
        assert tracer.lost == 0
    os.close(other)
    with suppress(OSError):
        os.close(number)
    assert len(rows) == TIMES
    assert {row[1] for row in rows} <= {str(secret), str(decoy)}


def give(listener: int, path: bytes) -> None:
    """As a supervisor: opens another file for the next call that is asked about, and makes it the call's result."""
    asked = bytearray(80)
    fcntl.ioctl(listener, NOTIF_RECV, asked)
    (number,) = struct.unpack_from("<Q", asked)
    fd = deeds.syscall(deeds.OPENAT, deeds.AT_FDCWD, path, os.O_RDONLY)
    fcntl.ioctl(listener, NOTIF_ADDFD, struct.pack("<QIIII", number, ADDFD_SEND, fd, 0, 0))
    os.close(fd)


def listen() -> int:
    """From now on a supervisor decides on each openat() of this thread; the descriptor to ask for them by."""
    filter = struct.pack(
        "<HBBIHBBIHBBIHBBI",
        *(0x20, 0, 0, 0),  # load the number
        *(0x15, 0, 1, deeds.OPENAT),
        *(0x06, 0, 0, USER_NOTIFICATION),
        *(0x06, 0, 0, ALLOW),
    )
    kept = ctypes.create_string_buffer(filter, len(filter))
    program = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", 4, ctypes.addressof(kept)), 16)
    return deeds.syscall(SECCOMP, 1, NEW_LISTENER, program)


def test_a_file_that_a_supervisor_gives_is_seen_twice_and_resolved(secret: Path, decoy: Path) -> None:
    def deed() -> None:
        opener = threading.Thread(target=asks)
        opener.start()
        listening.wait()
        give(listeners[0], bytes(secret))
        opener.join()
        assert contents == [b"secret"]

    def asks() -> None:
        listeners.append(listen())
        listening.set()
        fd = deeds.syscall(deeds.OPENAT, deeds.AT_FDCWD, bytes(decoy), os.O_RDONLY)
        contents.append(os.read(fd, 10))

    listeners: list[int] = []
    contents: list[bytes] = []
    listening = threading.Event()
    for resolve, expected in (
        (True, {(str(secret), str(secret)), (str(decoy), str(secret))}),
        (False, {(str(secret), None)}),
    ):
        with Tracer("trace_open", path=str(secret), resolve=resolve) as tracer:
            pid, code = deeds.in_child(deed)
            records = [record for record in tracer.records() if record["pid"] == pid]
        assert code == 0
        assert {(record["path"], record["resolved"]) for record in records} == expected
        assert len({record["tid"] for record in records}) == len(expected)


@contextmanager
def served_late(content: bytes, meanwhile: Callable[[], object]) -> Iterator[int]:
    """The address of a page that is not there until the kernel wants it; it waits while this is done."""
    faults = deeds.syscall(USERFAULTFD, os.O_CLOEXEC)
    assert faults >= 0, os.strerror(-faults)
    fcntl.ioctl(faults, UFFDIO_API, bytearray(struct.pack("<QQQ", 0xAA, 0, 0)))
    memory = mmap.mmap(-1, PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    fcntl.ioctl(faults, UFFDIO_REGISTER, bytearray(struct.pack("<QQQQ", address, PAGE, 1, 0)))
    kept = ctypes.create_string_buffer(content, PAGE)

    def serves() -> None:
        os.read(faults, 32)
        meanwhile()
        fcntl.ioctl(faults, UFFDIO_COPY, bytearray(struct.pack("<QQQQq", address, ctypes.addressof(kept), PAGE, 0, 0)))

    thread = threading.Thread(target=serves)
    thread.start()
    yield address
    thread.join()
    os.close(faults)


def linked(tracer: Tracer, path: Path, decoy: bytes) -> list[dict[str, Any]]:
    """Makes a symbolic link by a call that waits for what the link leads to, while its own name is rewritten."""
    memory = ctypes.create_string_buffer(bytes(path), PAGE)

    def rewrite() -> None:
        memory.value = decoy

    with served_late(b"anywhere", rewrite) as target:
        done = deeds.syscall(SYMLINKAT, target, deeds.AT_FDCWD, ctypes.addressof(memory))
    records = tracer.records()
    if done or not path.is_symlink():
        pytest.skip("this kernel reads the two names in another order")
    return records


def test_a_name_that_is_rewritten_during_the_call_is_shown_as_it_was_rewritten(tmp_path: Path, decoy: Path) -> None:
    """This stays open, and the help says so."""
    with Tracer("trace_file", pid=os.getpid()) as tracer:
        (record,) = linked(tracer, tmp_path / "link", bytes(decoy))
    assert (record["operation"], record["path"], record["errno"]) == ("symlink", str(decoy), 0)


def test_the_filter_by_path_misses_a_name_that_is_rewritten(tmp_path: Path, decoy: Path) -> None:
    with Tracer("trace_file", pid=os.getpid(), path=str(tmp_path / "link")) as tracer:
        assert linked(tracer, tmp_path / "link", bytes(decoy)) == []


def test_openat2_that_waits_for_its_flags_is_found_by_the_file_that_it_opened(secret: Path, decoy: Path) -> None:
    """The kernel reads the flags before the path, so a path that is rewritten in between is the one that counts."""
    memory = ctypes.create_string_buffer(bytes(decoy), PAGE)

    def rewrite() -> None:
        memory.value = bytes(secret)

    with Tracer("trace_open", pid=os.getpid(), path=str(secret)) as tracer:
        with served_late(bytes(24), rewrite) as how:
            fd = deeds.syscall(deeds.OPENAT2, deeds.AT_FDCWD, ctypes.addressof(memory), how, 24)
        assert os.read(fd, 10) == b"secret"
        os.close(fd)
        assert [record["path"] for record in tracer.records()] == [str(secret)]
