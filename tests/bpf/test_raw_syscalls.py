"""Gadgets that follow system calls where perf_event_open() is refused: the same rows, by bpf/syscalls.bpf.c.

With $RAW_SYSCALLS set all tests of gadgets run this way; here are those that tell the two ways apart.
"""

import ctypes
import mmap
import os
import signal
import uuid
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agent import probe
from tests.bpf import deeds
from tests.bpf.tracer import Tracer

pytestmark = pytest.mark.bpf
TIMES = 101
EXIT_SIGNAL = -signal.SIGSEGV


@pytest.fixture
def path(tmp_path: Path) -> bytes:
    file = tmp_path / uuid.uuid4().hex
    file.touch()
    return os.fsencode(file)


def test_every_call_that_opens_is_seen_once_with_its_result(path: bytes) -> None:
    file = Path("/dev/shm") / uuid.uuid4().hex
    file.touch()
    try:
        with Tracer("trace_open", pid=os.getpid(), raw_syscalls=True) as tracer:
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
    with Tracer("trace_exec", raw_syscalls=True) as tracer:
        for _ in range(TIMES):
            deeds.in_child(lambda: os.execv("/bin/true", ["true", os.fsdecode(path)]))
            deeds.in_child(lambda: os.execv(path, ["not", os.fsdecode(path)]))
        ours = [record["errno"] for record in tracer.records() if os.fsdecode(path) in (record["args"] or [])]
    assert ours == [0, 13] * TIMES


def test_a_program_at_the_entry_of_a_call_runs_as_well(tmp_path: Path) -> None:
    with Tracer("trace_mount", pid=os.getpid(), raw_syscalls=True) as tracer:
        target = os.fsencode(tmp_path / "none")
        results = [deeds.syscall(165 if deeds.X86 else 40, b"none", target, b"tmpfs", 0, None) for _ in range(TIMES)]
        records = tracer.records()
    assert [-record["errno"] for record in records] == results
    assert all(0 < record["latency"] < 1 << 63 for record in records)


def test_what_programs_go_on_with_runs_as_well(tmp_path: Path) -> None:
    target = os.fsencode(tmp_path / "file")
    with Tracer("trace_file", pid=os.getpid(), raw_syscalls=True) as tracer:
        for _ in range(TIMES):
            assert deeds.syscall(263 if deeds.X86 else 35, deeds.AT_FDCWD, target, 0) < 0  # unlinkat
        records = tracer.records()
        assert tracer.lost == 0
    told = [(record["operation"], record["errno"], record["path"]) for record in records]
    assert told == [("unlink", 2, os.fsdecode(target))] * TIMES


@pytest.mark.skipif(not deeds.X86, reason="int 0x80 is x86's")
@pytest.mark.parametrize("raw_syscalls", [False, True])
def test_a_call_of_the_32_bit_interface_is_not_taken_for_one_of_the_same_number(
    path: bytes, raw_syscalls: bool
) -> None:
    if not raw_syscalls and not probe.syscall_tracepoints():
        pytest.skip("perf_event_open() is refused here")

    def both() -> None:
        in_32_bits(deeds.OPENAT)
        deeds.openat(path, os.O_RDONLY)

    with Tracer("trace_open", raw_syscalls=raw_syscalls) as tracer:
        pid, exit_code = deeds.in_child(both)
        records = [record for record in tracer.records() if record["pid"] == pid]
    if exit_code == EXIT_SIGNAL:
        pytest.skip("this kernel has no 32-bit system calls (CONFIG_IA32_EMULATION)")
    assert [record["path"] for record in records] == [os.fsdecode(path)]


def result(record: dict[str, Any]) -> int:
    """As the system call returned it."""
    return int(record["fd"]) if record["fd"] >= 0 else -int(record["errno"])


def in_32_bits(number: int) -> int:
    """A system call by int 0x80, where numbers are i386's, with 0 for each argument."""
    clear = bytes.fromhex("31db 31c9 31d2 31f6 31ff")
    code = b"\x53\x55" + clear + b"\x31\xed\xb8" + number.to_bytes(4, "little") + b"\xcd\x80\x5d\x5b\xc3"
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page.write(code)
        start = ctypes.c_char.from_buffer(page)
        returned: int = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(start))()
        del start
    return returned
