"""trace syscalls: calls of this process and its children, counted exactly and decoded."""

import ctypes
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.gadgets.load import load_gadget
from kubectl_gadget.gadgets.schema import ARCHITECTURES
from kubectl_gadget.linux.syscalls import kernel_table, select
from kubectl_gadget.output.row_texts import MemberRows
from kubectl_gadget.rows.batch import decode
from kubectl_gadget.rows.rows import Rows
from tests.bpf.deeds import AT_FDCWD, OPENAT, in_child, syscall
from tests.bpf.tracer import MACHINE, Tracer

pytestmark = pytest.mark.bpf
TIMES = 13
UNKNOWN_NUMBER = 500


def traced(deed: Callable[[], object], calls: str, pid: int | None = None, **parameters: Any) -> list[dict[str, Any]]:
    """The rows of these calls that a deed of this process makes, as JSON has them."""
    wanted = select(calls) if calls else None
    tables = {f"syscall_table_{machine}": kernel_table(machine, wanted) for machine in ARCHITECTURES}
    parameters = parameters if pid == 0 else {"pid": os.getpid(), **parameters}
    with Tracer("trace_syscalls", variables=tables, **parameters) as tracer:
        deed()
        data = tracer.data()
        assert tracer.lost == 0
    return MemberRows().records(Rows([decode(load_gadget("trace_syscalls"), "node", data, architecture=MACHINE)]))


def told(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["syscall"], row["result"], row["error"], row["arguments"]


def test_each_call_is_one_row_with_what_it_was_asked_and_what_it_said(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "none")

    def deed() -> None:
        for _ in range(TIMES):
            syscall(OPENAT, AT_FDCWD, path, os.O_RDONLY)

    rows = traced(deed, "openat")
    assert [told(row) for row in rows] == [
        ("openat", -2, "ENOENT", ["AT_FDCWD", f'"{tmp_path}/none"', "O_RDONLY"])
    ] * TIMES
    assert all(0 < row["duration"] < 10**9 for row in rows)
    assert {row["tid"] for row in rows} == {os.getpid()}


def test_each_call_of_a_program_is_shown_once_when_it_begins(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "none")

    def deed() -> None:
        for _ in range(TIMES):
            syscall(OPENAT, AT_FDCWD, path, os.O_RDONLY)
        os.getppid()
        os.getppid()

    rows = traced(deed, "openat,getppid", unique=True)
    assert [(row["syscall"], row["result"], row["errno"]) for row in rows] == [
        ("openat", None, 0),
        ("getppid", None, 0),
    ]
    assert rows[0]["arguments"][1] == f'"{tmp_path}/none"'


def test_a_program_that_is_executed_has_its_calls_again() -> None:
    def child() -> None:
        os.getppid()
        os.execv("/bin/sh", ["sh", "-c", "exec sh -c 'exit 0'"])

    pids = []
    rows = traced(lambda: pids.append(in_child(child)[0]), "execve,getppid", pid=0, unique=True)
    own = [row["syscall"] for row in rows if row["pid"] == pids[0]]
    assert own.count("execve") == 2
    assert own[0] == "getppid"


def test_data_is_shown_as_far_as_asked(tmp_path: Path) -> None:
    receive, send = os.pipe()

    def deed() -> None:
        os.write(send, b"x" * 100)
        os.read(receive, 1000)

    short = [row["arguments"] for row in traced(deed, "read,write")]
    assert short == [[str(send), f'"{"x" * 32}"...', "100"], [str(receive), f'"{"x" * 32}"...', "1000"]]
    long = [row["arguments"][1] for row in traced(deed, "read,write", data_bytes=1024)]
    assert long == [f'"{"x" * 100}"'] * 2
    os.close(receive)
    os.close(send)


def test_addresses_are_read_both_ways() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        port = server.getsockname()[1]

        def deed() -> None:
            client.connect(("127.0.0.1", port))
            client.getpeername()

        rows = traced(deed, "connect,getpeername")
        assert [(row["syscall"], row["arguments"][1]) for row in rows] == [
            ("connect", f"127.0.0.1:{port}"),
            ("getpeername", f"127.0.0.1:{port}"),
        ]


def test_an_exec_has_the_arguments_that_its_caller_gave_and_an_exit_has_no_result() -> None:
    deed = lambda: os.spawnv(os.P_WAIT, "/bin/true", ["true", "one two", "ü"])  # noqa: E731
    rows = traced(deed, "execve,exit_group", pid=0, uid=os.getuid())
    execs = [row for row in rows if row["syscall"] == "execve" and row["ppid"] == os.getpid()]
    (exec_row,) = execs
    assert told(exec_row)[1:3] == (0, "")
    assert exec_row["arguments"][:2] == ['"/bin/true"', '["true", "one two", "ü"]']
    (exit_row,) = [row for row in rows if row["syscall"] == "exit_group" and row["pid"] == exec_row["pid"]]
    assert told(exit_row)[1:] == (None, "", ["0"])
    assert exit_row["duration"] is None


def test_an_exec_by_another_thread_than_the_first_is_one_row() -> None:
    """The thread becomes the first one, so that it returns with another TID."""

    def child() -> None:
        thread = threading.Thread(target=os.execv, args=("/bin/true", ["true", "by a thread"]))
        thread.start()
        thread.join()

    rows = traced(lambda: in_child(child), "execve", pid=0, uid=os.getuid())
    (row,) = [row for row in rows if row["ppid"] == os.getpid()]
    assert told(row)[1:3] == (0, "")
    assert row["arguments"][1] == '["true", "by a thread"]'
    assert 0 < row["duration"] < 10**10


def test_only_what_failed_or_took_long_is_sent_when_asked() -> None:
    def deed() -> None:
        os.getppid()
        syscall(OPENAT, AT_FDCWD, 8, 0)
        libc = ctypes.CDLL(None)
        libc.usleep(20_000)

    assert [told(row)[:3] for row in traced(deed, "", failed=True)] == [("openat", -14, "EFAULT")]
    assert [told(row)[:3] for row in traced(deed, "", errno=14)] == [("openat", -14, "EFAULT")]
    assert [row["syscall"] for row in traced(deed, "", min=19_000)] == ["clock_nanosleep"]


def test_a_call_without_a_name_is_seen_with_its_number() -> None:
    (row,) = [row for row in traced(lambda: syscall(UNKNOWN_NUMBER, 1, 2, 3, 4, 5, 6), "", failed=True)]
    assert told(row) == (str(UNKNOWN_NUMBER), -38, "ENOSYS", ["0x1", "0x2", "0x3", "0x4", "0x5", "0x6"])


def test_a_child_returns_from_fork_too() -> None:
    child, code = 0, 1

    def deed() -> None:
        nonlocal child, code
        child, code = in_child(lambda: None)

    rows = traced(deed, "fork,vfork,clone,clone3", pid=0, uid=os.getuid())
    assert code == 0
    assert [(row["result"], row["duration"]) for row in rows if row["pid"] == child] == [(0, None)]
