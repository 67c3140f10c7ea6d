"""Gadgets that follow system calls by the raw tracepoints of all, through bpf/syscalls.bpf.c."""

import os
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.bpf import deeds
from tests.bpf.tracer import Tracer

pytestmark = pytest.mark.bpf
TIMES = 101


@pytest.fixture
def path(tmp_path: Path) -> bytes:
    file = tmp_path / uuid.uuid4().hex
    file.touch()
    return os.fsencode(file)


def test_every_call_that_opens_is_seen_once_with_its_result(path: bytes) -> None:
    file = Path("/dev/shm") / uuid.uuid4().hex
    file.touch()
    try:
        with Tracer("trace_open", pid=os.getpid()) as tracer:
            fds = []
            for _ in range(TIMES):
                fds.append(deeds.openat(path, os.O_RDONLY))
                fds.append(deeds.openat2(path, os.O_RDONLY))
                fds.append(deeds.openat(path + b"-not-there", os.O_RDONLY))
                if deeds.X86:
                    fds.append(deeds.open_(path, os.O_RDONLY))
                    fds.append(deeds.creat(path, 0o600))
            assert [result(record) for record in tracer.records()] == fds
            # Without CAP_DAC_READ_SEARCH it fails, which is a row as well.
            fds = [deeds.open_by_handle_at(file, os.O_RDONLY) for _ in range(TIMES)]
            assert [result(record) for record in tracer.records() if record["path"] is None] == fds
            assert tracer.lost == 0
    finally:
        file.unlink()


def test_every_exec_is_seen_once(path: bytes) -> None:
    with Tracer("trace_exec") as tracer:
        for _ in range(TIMES):
            deeds.in_child(lambda: os.execv("/bin/true", ["true", os.fsdecode(path)]))
            deeds.in_child(lambda: os.execv(path, ["not", os.fsdecode(path)]))
        ours = [record["errno"] for record in tracer.records() if os.fsdecode(path) in (record["args"] or [])]
    assert ours == [0, 13] * TIMES


def test_a_program_at_the_entry_of_a_call_runs_as_well(tmp_path: Path) -> None:
    with Tracer("trace_mount", pid=os.getpid()) as tracer:
        target = os.fsencode(tmp_path / "none")
        results = [deeds.syscall(165 if deeds.X86 else 40, b"none", target, b"tmpfs", 0, None) for _ in range(TIMES)]
        records = tracer.records()
    assert [-record["errno"] for record in records] == results
    assert all(0 < record["latency"] < 1 << 63 for record in records)


def test_what_programs_go_on_with_runs_as_well(tmp_path: Path) -> None:
    target = os.fsencode(tmp_path / "file")
    with Tracer("trace_file", pid=os.getpid()) as tracer:
        for _ in range(TIMES):
            assert deeds.syscall(263 if deeds.X86 else 35, deeds.AT_FDCWD, target, 0) < 0  # unlinkat
        records = tracer.records()
        assert tracer.lost == 0
    told = [(record["operation"], record["errno"], record["path"]) for record in records]
    assert told == [("unlink", 2, os.fsdecode(target))] * TIMES


def result(record: dict[str, Any]) -> int:
    """As the system call returned it."""
    return int(record["fd"]) if record["fd"] >= 0 else -int(record["errno"])
