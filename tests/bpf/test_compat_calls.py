"""Calls of 32-bit programs, which a 64-bit one can make by int 0x80: every gadget that follows system calls sees them.

Arguments and structs are i386's there, and socketcall() is many calls.
"""

import array
import ctypes
import os
import socket
import struct
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from kubectl_gadget.filters import pushdown
from kubectl_gadget.linux.syscalls import COMPAT
from tests.bpf import compat, deeds
from tests.bpf.answers import Answers
from tests.bpf.compat import NUMBERS, call, place
from tests.bpf.tracer import Tracer

pytestmark = [
    pytest.mark.bpf,
]
MARK_COMPAT = 2
NONE = (1 << 64) - 1
TIMES = 31
MANY = 3000
BIND, CONNECT, SENDMSG = 2, 3, 16
"""The numbers of socketcall()."""


@pytest.fixture(autouse=True)
def possible() -> None:
    compat.needs()


@pytest.fixture
def path(tmp_path: Path) -> bytes:
    file = tmp_path / uuid.uuid4().hex
    file.write_bytes(b"content")
    return os.fsencode(file)


@pytest.fixture
def closing() -> Iterator[list[int]]:
    fds: list[int] = []
    yield fds
    for fd in fds:
        os.close(fd)


def mine(name: str, **options: Any) -> Tracer:
    return Tracer(name, pid=os.getpid(), compat=True, **options)


def socketcall(which: int, *arguments: int) -> int:
    return call("socketcall", which, place(struct.pack(f"<{len(arguments)}I", *arguments)))


def opened(fd: int, path: bytes, flags: int, mode: int = 0) -> dict[str, Any]:
    return {"fd": max(fd, -1), "errno": max(-fd, 0), "path": os.fsdecode(path), "flags": flags, "mode": mode}


def test_open_sees_them_with_path_flags_and_result(path: bytes, closing: list[int]) -> None:
    made = path + b"-made"
    with mine("trace_open") as tracer:
        for _ in range(TIMES):
            closing.append(call("openat", deeds.AT_FDCWD, path, os.O_RDWR))
            closing.append(call("open", path, os.O_RDONLY))
            closing.append(call("creat", made, 0o640))
            assert call("open", path + b"-not-there", os.O_WRONLY) == -2
            how = struct.pack("<QQQ", os.O_APPEND | os.O_WRONLY, 0, 0)
            closing.append(call("openat2", deeds.AT_FDCWD, path, how, 24))
        records = tracer.records()
        assert tracer.lost == 0
    fds = iter(closing)
    expected = []
    for _ in range(TIMES):
        expected.append(opened(next(fds), path, os.O_RDWR))
        expected.append(opened(next(fds), path, os.O_RDONLY))
        expected.append(opened(next(fds), made, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o640))
        expected.append(opened(-2, path + b"-not-there", os.O_WRONLY))
        expected.append(opened(next(fds), path, os.O_APPEND | os.O_WRONLY))
    assert [{name: record[name] for name in expected[0]} for record in records] == expected
    assert all(record["marks"] & MARK_COMPAT for record in records)


def test_calls_of_both_kinds_at_the_same_time_are_told_apart(path: bytes) -> None:
    """The same programs run for them, on two processors at once."""
    other, asked = path + b"-not-there", os.O_WRONLY | os.O_CLOEXEC
    first, *more = sorted(os.sched_getaffinity(0))
    if not more:
        pytest.skip("this machine has one processor")

    def open_natively() -> None:
        os.sched_setaffinity(0, {more[0]})
        for _ in range(MANY):
            with suppress(FileNotFoundError):
                os.open(other, asked)

    placed = place(path)
    with mine("trace_open") as tracer:
        natively = Thread(target=open_natively)
        natively.start()
        os.sched_setaffinity(threading.get_native_id(), {first})
        try:
            for _ in range(MANY):
                os.close(call("open", placed, os.O_RDONLY))
        finally:
            os.sched_setaffinity(threading.get_native_id(), {first, *more})
            natively.join()
        records = tracer.records()
        assert tracer.lost == 0
    told = Counter((bool(record["marks"] & MARK_COMPAT), record["path"], record["flags"]) for record in records)
    assert told == {
        (True, os.fsdecode(path), os.O_RDONLY): MANY,
        (False, os.fsdecode(other), asked): MANY,
    }


def test_fileuse_sees_what_is_done_with_a_file(path: bytes) -> None:
    tails = pushdown.table(pushdown.read_paths(os.fsdecode(path)))
    room = place(bytes(64))
    piece = struct.pack("<II", room, 3)
    with mine("trace_fileuse", variables={"wanted_paths": tails}) as tracer:
        fd = call("open", path, os.O_RDWR | 0o100000)  # O_LARGEFILE
        assert call("read", fd, room, 2) == 2
        assert call("pread64", fd, room, 5, 1, 0) == 5
        assert call("readv", fd, piece, 1) == 3
        assert call("write", fd, room, 4) == 4
        assert call("ftruncate64", fd, 7, 1) == 0
        assert call("close", fd) == 0
        records = tracer.records()
    assert [(record["operation"], None if record["bytes"] == NONE else record["bytes"]) for record in records] == [
        ("open", None),
        ("read", 2),
        ("read", 5),
        ("read", 3),
        ("write", 4),
        ("truncate", 7 | 1 << 32),
        ("close", None),
    ]


def test_file_sees_changes_with_users_of_16_bits(path: bytes) -> None:
    with mine("trace_file") as tracer:
        assert call("chown", path, 0xFFFF, 0) == 0
        assert call("chown32", path, 0, 0xFFFFFFFF) == 0
        assert call("rename", path, path + b"-new") == 0
        assert call("unlink", path + b"-new") == 0
        records = [record for record in tracer.records() if record["operation"] != "mkdir"]
    told = [(record["operation"], record["owner"], record["group"]) for record in records]
    assert told == [("chown", NONE, 0), ("chown", 0, NONE), ("rename", NONE, NONE), ("unlink", NONE, NONE)]
    assert records[2]["to"] == os.fsdecode(path + b"-new")


def test_bind_and_connect_are_seen_through_socketcall() -> None:
    with socket.socket() as one, socket.socket() as two, mine("trace_bind") as bind, mine("trace_tcp") as tcp:
        address = place(struct.pack("<H", socket.AF_INET) + struct.pack(">H", 0) + bytes((127, 0, 0, 1)) + bytes(8))
        assert socketcall(BIND, one.fileno(), address, 16) == 0
        closed = one.getsockname()[1]
        to = place(struct.pack("<H", socket.AF_INET) + struct.pack(">H", closed) + bytes((127, 0, 0, 1)) + bytes(8))
        assert socketcall(CONNECT, two.fileno(), to, 16) == -111
        fd, [bound] = one.fileno(), bind.records()
        connected = tcp.records()
    assert bound["fd"] == fd
    assert [(record["operation"], record["errno"], record["remote_port"]) for record in connected] == [(1, 111, closed)]


def test_a_descriptor_that_is_passed_is_seen(path: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs, open(path, "rb") as file, mine("trace_fdpass") as tracer:
        control = place(struct.pack("<IIII", 16, socket.SOL_SOCKET, socket.SCM_RIGHTS, file.fileno()))
        piece = place(struct.pack("<II", place(b"x"), 1))
        message = place(struct.pack("<7I", 0, 0, piece, 1, control, 16, 0))
        assert socketcall(SENDMSG, ours.fileno(), message, 0) == 1
        fd, records = file.fileno(), tracer.records()
        _, ancillary, _, _ = theirs.recvmsg(1, 64)
    received = array.array("i")
    received.frombytes(ancillary[0][2][:4])
    os.close(received[0])
    assert [(record["operation"], record["fd"], record["path"]) for record in records] == [
        ("send", fd, os.fsdecode(path))
    ]


def test_failed_executions_are_seen_with_their_arguments(path: bytes) -> None:
    os.chmod(path, 0o600)
    arguments = struct.pack("<III", place(b"first"), place(b"second"), 0)
    with mine("trace_exec") as tracer:
        assert call("execve", path, arguments, 0) == -13
        records = [(record["errno"], record["path"], record["args"]) for record in tracer.records()]
    assert records == [(13, os.fsdecode(path), ["first", "second"])]


def test_privilege_sees_them() -> None:
    def deed() -> None:
        assert call("setresuid", 0xFFFF, 4711, 0xFFFF) == 0
        assert call("unshare", 0x10000000) == 0

    with Tracer("trace_privilege", compat=True) as tracer:
        pid, code = deeds.in_child(deed)
        records = [record for record in tracer.records() if record["pid"] == pid]
    assert code == 0
    assert [record["operation"] for record in records] == ["setresuid", "unshare"]
    assert (records[0]["old_euid"], records[0]["new_euid"]) == (0, 4711)
    assert records[1]["namespaces"] == 0x10000000


def test_each_call_is_shown_with_its_own_number_and_arguments(path: bytes, closing: list[int]) -> None:
    with mine("trace_syscalls", syscalls="openat,connect") as tracer:
        closing.append(call("openat", deeds.AT_FDCWD, path, os.O_RDWR))
        address = place(struct.pack("<H", socket.AF_UNIX) + b"/nowhere\0")
        assert socketcall(CONNECT, closing[0], address, 12) < 0
        call("getppid")
        records = tracer.records()
    assert [record["syscall"] for record in records] == [COMPAT | NUMBERS["openat"], COMPAT | NUMBERS["connect"]]
    assert [record["result"] for record in records] == [closing[0], -88]


def test_numbers_that_mean_other_calls_there_are_not_mixed_up(path: bytes) -> None:
    # read is 3, and 3 is close of 64-bit programs; 5 is fstat there.
    room = place(bytes(64))
    with mine("trace_syscalls", syscalls="read,close,fstat") as tracer, open(path, "rb", buffering=0) as file:
        tracer.records()
        assert call("read", file.fileno(), room, 7) == 7
        deeds.syscall(3, 9999)
        records = tracer.records()
    assert [record["syscall"] for record in records] == [COMPAT | 3, 3]


@pytest.mark.parametrize("begun", [False, True])
def test_top_syscalls_counts_them_apart(begun: bool) -> None:
    with Answers("top_syscalls", compat=True, begun=begun, syscalls="getppid") as top:
        for _ in range(TIMES):
            call("getppid")
        counts = {record["syscall"]: record["count"] for record in top.take()}
    assert counts[COMPAT | NUMBERS["getppid"]] == TIMES


def test_profile_syscall_times_them() -> None:
    with Answers("profile_syscall", compat=True, syscalls="getppid") as profile:
        for _ in range(TIMES):
            call("getppid")
        times = {record["syscall"]: record["count"] for record in profile.take()}
    assert times[COMPAT | NUMBERS["getppid"]] == TIMES


def test_top_file_counts_what_they_read(path: bytes) -> None:
    room = place(bytes(64))
    with Answers("top_file", compat=True) as top, open(path, "rb", buffering=0) as file:
        for _ in range(TIMES):
            assert call("pread64", file.fileno(), room, 5, 0, 0) == 5
        found = [record for record in top.take() if record["inode"] == os.fstat(file.fileno()).st_ino]
    assert [(record["reads"], record["read_bytes"]) for record in found] == [(TIMES, 5 * TIMES)]


def test_several_programs_follow_one_call(path: bytes, closing: list[int]) -> None:
    with mine("trace_open") as one, mine("trace_open") as two:
        closing.append(call("openat", deeds.AT_FDCWD, path, 0))
        closing.append(os.open(path, os.O_RDONLY))
        rows = [record for tracer in (one, two) for record in tracer.records()]
        seen = Counter(record["fd"] for record in rows if record["path"] == os.fsdecode(path))
    assert seen == {fd: 2 for fd in closing}


def test_calls_of_x32_are_those_of_64_bits_with_a_bit(path: bytes) -> None:
    with mine("trace_syscalls", syscalls="getppid") as tracer:
        ctypes.CDLL(None).syscall(ctypes.c_long(1 << 30 | 110))
        records = tracer.records()
    assert [record["syscall"] for record in records] == [1 << 30 | 110]
