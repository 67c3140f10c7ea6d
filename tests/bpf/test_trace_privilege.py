"""trace privilege: known changes of users, capabilities and namespaces, a prime number of times."""

import ctypes
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bpf import deeds
from tests.bpf.deeds import syscall
from tests.bpf.tracer import Tracer

pytestmark = pytest.mark.bpf
TIMES = 31
SETUID, SETRESUID, SETGROUPS, SETNS, UNSHARE, CLONE, PTRACE, CAPSET, CAPGET = (
    (105, 117, 116, 308, 272, 56, 101, 126, 125) if deeds.X86 else (146, 147, 159, 268, 97, 220, 117, 91, 90)
)
NEWNS, NEWUTS, NEWUSER, NEWNET = 0x20000, 0x4000000, 0x10000000, 0x40000000
NONE = 2**32 - 1
EPERM = 1
NOBODY = 65534
CAP_KILL, CAP_SYS_ADMIN = 5, 21


def traced(deed: Callable[[], object], **parameters: Any) -> list[dict[str, Any]]:
    """The records of `deed`, run in a child."""
    with Tracer("trace_privilege", **parameters) as tracer:
        pid, code = deeds.in_child(deed)
        records = [record for record in tracer.records() if record["pid"] == pid]
        assert tracer.lost == 0
    assert code == 0
    return records


def capabilities() -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff")]
    return int(line.split()[1], 16)


def users(record: dict[str, Any]) -> tuple[int, ...]:
    return tuple(record[f"{when}_{name}"] for name in ("uid", "euid") for when in ("old", "new"))


def test_each_change_of_user_is_seen_with_what_was_before() -> None:
    def deed() -> None:
        for _ in range(TIMES):
            assert syscall(SETRESUID, -1, 7, -1) == 0
            assert syscall(SETRESUID, -1, 0, -1) == 0

    records = traced(deed)
    assert [(record["operation"], record["target"]) for record in records] == [
        ("setresuid", 7),
        ("setresuid", 0),
    ] * TIMES
    assert [users(record) for record in records] == [(0, 0, 0, 7), (0, 0, 7, 0)] * TIMES
    all_of_them = capabilities()
    first, second = records[:2]
    assert (first["old_capabilities"], first["new_capabilities"]) == (all_of_them, 0)
    assert (second["old_capabilities"], second["new_capabilities"]) == (0, all_of_them)


def test_a_change_that_is_refused_changes_nothing() -> None:
    def deed() -> None:
        assert syscall(SETUID, NOBODY) == 0
        for _ in range(TIMES):
            assert syscall(SETUID, 0) == -EPERM

    records = traced(deed, failed=True)
    assert len(records) == TIMES
    assert {(*users(record), record["errno"], record["target"]) for record in records} == {
        (NOBODY, NOBODY, NOBODY, NOBODY, EPERM, 0)
    }


def test_capabilities_given_up_are_seen() -> None:
    header = ctypes.create_string_buffer(struct.pack("<Ii", 0x20080522, 0), 8)
    data = ctypes.create_string_buffer(24)

    def deed() -> None:
        assert syscall(CAPGET, header, data) == 0
        words = list(struct.unpack("<6I", data.raw))
        words[0] &= ~(1 << CAP_KILL)
        assert syscall(CAPSET, header, ctypes.create_string_buffer(struct.pack("<6I", *words), 24)) == 0

    (record,) = traced(deed)
    assert record["operation"] == "capset"
    assert record["old_capabilities"] & ~record["new_capabilities"] == 1 << CAP_KILL


def test_new_namespaces_are_seen_and_joined_ones() -> None:
    def deed() -> None:
        for _ in range(TIMES):
            assert syscall(UNSHARE, NEWNS | NEWUTS) == 0
            assert syscall(UNSHARE, 0x200) == 0  # CLONE_FS, no namespace
        fd = os.open("/proc/self/ns/uts", os.O_RDONLY)
        assert syscall(SETNS, fd, NEWUTS) == 0
        assert syscall(SETNS, fd, NEWNET) < 0

    records = traced(deed)
    assert [(record["operation"], record["namespaces"]) for record in records] == [
        *[("unshare", NEWNS | NEWUTS)] * TIMES,
        ("setns", NEWUTS),
        ("setns", NEWNET),
    ]
    assert [record["errno"] for record in records[-2:]] == [0, 22]


def test_a_child_in_new_namespaces_is_seen_and_an_ordinary_one_is_not() -> None:
    def deed() -> None:
        for flags in (0, NEWUTS):
            arguments = (flags | 17, 0, 0, 0, 0)
            pid = syscall(CLONE, *arguments)
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)

    (record,) = traced(deed)
    assert (record["operation"], record["namespaces"], record["errno"]) == ("clone", NEWUTS, 0)
    assert record["target"] > 0


def test_a_user_namespace_gives_all_capabilities() -> None:
    def deed() -> None:
        assert syscall(SETUID, NOBODY) == 0
        if syscall(UNSHARE, NEWUSER) < 0:
            os._exit(0)  # forbidden here

    records = traced(deed, operation="unshare")
    assert [record["namespaces"] for record in records] == [NEWUSER]
    if records[0]["errno"] == 0:
        assert records[0]["old_capabilities"] == 0
        assert records[0]["new_capabilities"] & (1 << CAP_SYS_ADMIN)


def test_taking_hold_of_a_process_is_seen_and_what_follows_is_not() -> None:
    def deed() -> None:
        victim = os.fork()
        if victim == 0:
            while True:
                os.read(os.pipe()[0], 1)
        assert syscall(PTRACE, 16, victim, None, None) == 0
        os.waitpid(victim, 0)
        assert syscall(PTRACE, 17, victim, None, None) == 0  # PTRACE_DETACH
        os.kill(victim, 9)
        os.waitpid(victim, 0)

    (record,) = traced(deed)
    assert (record["operation"], record["request"], record["option"], record["errno"]) == ("ptrace", 16, NONE, 0)
    assert record["target"] > 0


def test_prctl_is_seen_where_it_is_about_privileges() -> None:
    libc = ctypes.CDLL(None)

    def deed() -> None:
        for _ in range(TIMES):
            assert libc.prctl(24, CAP_KILL, 0, 0, 0) == 0  # PR_CAPBSET_DROP
            assert libc.prctl(15, b"name", 0, 0, 0) == 0  # PR_SET_NAME

    assert traced(deed) == []
    records = traced(deed, given_up=True)
    assert [(record["operation"], record["option"], record["target"]) for record in records] == [
        ("prctl", 24, CAP_KILL)
    ] * TIMES


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that every user may enter, as the folders above `tmp_path` are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_setuid_program_is_seen_and_an_ordinary_one_is_not(open_folder: Path) -> None:
    program = open_folder / "true"
    shutil.copy("/bin/true", program)

    def deed() -> None:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        os.execv(program, ["true"])

    assert traced(deed, operation="exec") == []
    program.chmod(0o4755)
    (record,) = traced(deed, operation="exec")
    assert users(record) == (NOBODY, NOBODY, NOBODY, 0)
    assert record["new_capabilities"] == capabilities()
    assert record["old_capabilities"] == 2**64 - 1


def test_changed_leaves_out_calls_without_an_effect() -> None:
    def deed() -> None:
        assert syscall(SETRESUID, 0, 0, 0) == 0
        assert syscall(SETUID, NOBODY) == 0

    (record,) = traced(deed, changed=True)
    assert (record["operation"], record["new_uid"]) == ("setuid", NOBODY)
