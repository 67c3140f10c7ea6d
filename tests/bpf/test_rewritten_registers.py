"""A tracer changes a call's number and arguments while the call is stopped: rows are about what the kernel did."""

import ctypes
import os
import struct
from pathlib import Path

import pytest

from tests.bpf import deeds
from tests.bpf.stopped import (
    GETPPID,
    ORIG_RAX,
    RDI,
    RDX,
    RSI,
    TRACE_CLONE,
    TRACE_SYSCALLS,
    Stopped,
    needs_x86,
)
from tests.bpf.tracer import Tracer

pytestmark = [pytest.mark.bpf, needs_x86]
CLONE, CLONE3, OPENAT, AT_FDCWD = 56, 435, 257, -100
NEWUTS, NEWUSER = 0x4000000, 0x10000000
SIGURG = 23
"""What says that the child has ended, and is ignored. With SIGCHLD it would be a fork to PTRACE_O_TRACECLONE."""


def wait_for_child(pid: int) -> None:
    if pid == 0:
        os._exit(0)
    assert pid > 0
    os.waitpid(pid, 0x40000000)


def clone(flags: int) -> int:
    pid = deeds.syscall(CLONE, flags | SIGURG, 0, 0, 0, 0)
    wait_for_child(pid)
    return pid


@pytest.mark.parametrize("number", [GETPPID, CLONE3, OPENAT])
def test_a_child_in_a_new_namespace_is_seen_whatever_call_it_is_turned_into(number: int) -> None:
    with Tracer("trace_privilege") as tracer:
        with Stopped(lambda: clone(NEWUTS), TRACE_CLONE) as child:
            child.rewrite(ORIG_RAX, number)
            child.rewrite(RDI, 0)
        records = [record for record in tracer.records() if record["pid"] == child.pid]
    # Taking hold of the child is one, too.
    (record,) = [record for record in records if record["operation"] != "ptrace"]
    assert (record["operation"], record["namespaces"], record["errno"]) == ("clone", NEWUTS, 0)
    assert record["target"] > child.pid


def test_flags_of_clone3_are_what_the_kernel_took() -> None:
    arguments = ctypes.create_string_buffer(struct.pack("<8Q", NEWUTS | NEWUSER, 0, 0, 0, SIGURG, 0, 0, 0), 64)

    def deed() -> None:
        wait_for_child(deeds.syscall(CLONE3, arguments, 64))

    with Tracer("trace_privilege") as tracer:
        with Stopped(deed, TRACE_CLONE) as child:
            child.rewrite_memory(ctypes.addressof(arguments), 0)
        records = [record for record in tracer.records() if record["pid"] == child.pid]
    (record,) = [record for record in records if record["operation"] != "ptrace"]
    assert (record["operation"], record["namespaces"]) == ("clone3", NEWUTS | NEWUSER)


def test_a_clone_that_is_turned_into_an_open_is_not_shown_as_one(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "never opened")
    kept = ctypes.create_string_buffer(path)

    with Tracer("trace_open") as tracer:
        with Stopped(lambda: clone(0), TRACE_CLONE) as child:
            child.rewrite(ORIG_RAX, OPENAT)
            child.rewrite(RDI, AT_FDCWD)
            child.rewrite(RSI, ctypes.addressof(kept))
            child.rewrite(RDX, 0)
        records = [record["path"] for record in tracer.records() if record["pid"] == child.pid]
    assert records == []


def test_what_a_tracer_writes_at_the_entry_is_what_is_shown_and_at_the_exit_it_is_not(tmp_path: Path) -> None:
    asked, done, lied = (tmp_path / name for name in ("asked", "done", "lied"))
    for path in (asked, done, lied):
        path.touch()
    texts = [ctypes.create_string_buffer(os.fsencode(path)) for path in (asked, done, lied)]

    def deed() -> None:
        deeds.syscall(OPENAT, AT_FDCWD, texts[0], os.O_RDONLY, 0)

    with Tracer("trace_open") as tracer:
        with Stopped(deed, TRACE_SYSCALLS) as child:
            child.rewrite(RSI, ctypes.addressof(texts[1]))
            child.go_on()
            child.rewrite(ORIG_RAX, GETPPID)
            child.rewrite(RSI, ctypes.addressof(texts[2]))
        records = [record["path"] for record in tracer.records() if record["pid"] == child.pid]
    assert records == [os.fspath(done)]
