"""trace lsm: known questions to the security modules, a prime number of times. Needs a kernel with fexit or BPF LSM."""

import ctypes
import os
import signal
import socket
import stat
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agent.bpf.libbpf import Failure
from tests.bpf import deeds
from tests.bpf.network import address
from tests.bpf.tracer import Tracer

pytestmark = pytest.mark.bpf
TIMES = 31
PTRACE, CAPSET = (101, 126) if deeds.X86 else (117, 91)
PTRACE_SEIZE, PTRACE_DETACH = 0x4206, 17
PTRACE_ATTACH_REALCREDS = 0x12
CAPABILITY_VERSION_3 = 0x20080522


@pytest.fixture(scope="module", autouse=True)
def _loads(catalogue_built: Path) -> None:
    assert catalogue_built
    try:
        with Tracer("trace_lsm", hook="file_open"):
            pass
    except Failure:
        pytest.skip("this kernel has neither fexit nor BPF LSM")


def asked(hook: str, deed: Callable[[], Any], **parameters: Any) -> list[dict[str, Any]]:
    """What this process was the reason for."""
    with Tracer("trace_lsm", hook=hook, pid=os.getpid(), **parameters) as tracer:
        deed()
        records = tracer.records()
        assert tracer.lost == 0
    return records


def test_only_the_hooks_asked_for_are_attached() -> None:
    with Tracer("trace_lsm", hook="path_chmod, task_kill") as tracer:
        assert sorted(name.rsplit("_", 1)[0] for name in tracer.programs) == ["path_chmod", "task_kill"]


def test_all_hooks_load() -> None:
    with Tracer("trace_lsm", hook="all") as tracer:
        assert len(tracer.programs) == len(tracer.gadget.agent.programs)


def as_modules(hook: str, **parameters: Any) -> Tracer:
    """The second choice, tried alone."""
    tracer = Tracer("trace_lsm", hook=hook, **parameters)
    modules = tuple(replace(choice, any_of=choice.any_of[1:]) for choice in tracer.gadget.agent.programs)
    tracer.gadget = replace(tracer.gadget, agent=replace(tracer.gadget.agent, programs=modules))
    return tracer


def test_every_hook_loads_as_a_security_module() -> None:
    try:
        with as_modules("all") as tracer:
            assert all(name.endswith("_module") for name in tracer.programs)
            assert len(tracer.programs) == len(tracer.gadget.agent.programs)
    except Failure:
        modules = Path("/sys/kernel/security/lsm")
        if modules.exists() and "bpf" not in modules.read_text().split(","):
            pytest.skip("BPF is no security module here")
        raise


def test_a_security_module_is_asked_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    os.chdir(tmp_path)
    with as_modules("path_rename,mmap_file,path_chmod", pid=os.getpid()) as tracer:
        os.chmod("file", 0o600)
        os.rename("file", "new")
        found = {record["hook"]: record for record in tracer.records()}
    assert (found["path_chmod"]["path"], found["path_chmod"]["argument_1"]) == (str(tmp_path / "file"), 0o600)
    assert (found["path_rename"]["path"], found["path_rename"]["to"]) == (str(tmp_path / "file"), str(tmp_path / "new"))


def test_each_opening_is_seen_once_with_the_kernels_path(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("x")
    (tmp_path / "link").symlink_to("real")
    flags = os.O_RDWR | os.O_APPEND

    def deed() -> None:
        for _ in range(TIMES):
            deeds.openat(os.fsencode(tmp_path / "link"), flags)

    records = asked("file_open", deed)
    assert len(records) == TIMES
    assert {(record["hook"], record["path"], record["verdict"]) for record in records} == {
        ("file_open", str(tmp_path / "real"), 0)
    }
    assert {record["argument_1"] & ~0o100000 for record in records} == {flags}
    assert {record["arguments"] for record in records} == {1}
    assert {(record["target"], record["target_pid"], record["to"], record["name"]) for record in records} == {
        (0, 0, None, None)
    }


@pytest.mark.parametrize(
    ("hook", "deed", "seen"),
    [
        ("path_chmod", lambda at: os.chmod(at / "file", 0o640), {"path": "file", "argument_1": 0o640}),
        ("path_chown", lambda at: os.chown(at / "file", 7, -1), {"path": "file", "argument_1": 7}),
        ("path_truncate", lambda at: os.truncate(at / "file", 5), {"path": "file"}),
        ("path_unlink", lambda at: os.unlink(at / "file"), {"path": "file"}),
        ("path_mkdir", lambda at: os.mkdir(at / "new", 0o700), {"path": "new", "argument_1": 0o700}),
        ("path_rmdir", lambda at: os.rmdir(at / "folder"), {"path": "folder"}),
        (
            "path_mknod",
            lambda at: os.mknod(at / "new", stat.S_IFCHR | 0o600, os.makedev(1, 3)),
            {"path": "new", "argument_1": stat.S_IFCHR | 0o600, "argument_2": os.makedev(1, 3)},
        ),
        ("path_symlink", lambda at: os.symlink("any/where", at / "new"), {"path": "new", "name": "any/where"}),
        ("path_link", lambda at: os.link(at / "file", at / "new"), {"path": "file", "to": "new"}),
        ("path_rename", lambda at: os.rename(at / "file", at / "folder/new"), {"path": "file", "to": "folder/new"}),
    ],
)
def test_what_is_done_to_a_file_is_asked_with_its_path(
    tmp_path: Path, hook: str, deed: Callable[[Path], None], seen: dict[str, Any]
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    os.chdir(tmp_path)
    (record,) = asked(hook, lambda: deed(Path(".")))
    expected = {name: str(tmp_path / text) if name in ("path", "to") else text for name, text in seen.items()}
    assert {name: record[name] for name in seen} == expected
    assert (record["hook"], record["verdict"]) == (hook, 0)


def test_a_program_is_asked_about_with_its_name() -> None:
    with Tracer("trace_lsm", hook="bprm_check_security") as tracer:
        pid, _ = deeds.in_child(lambda: os.execv("/bin/true", ["true"]))
        (record,) = [record for record in tracer.records() if record["pid"] == pid]
    assert (record["path"], record["name"]) == (os.path.realpath("/bin/true"), "/bin/true")


def test_a_signal_is_asked_about_with_both_processes() -> None:
    pid = os.fork()
    if pid == 0:
        signal.pause()
    records = asked("task_kill", lambda: [os.kill(pid, 0) for _ in range(TIMES)])
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert len(records) == TIMES
    assert {(record["target_pid"], record["target_comm"], record["argument_1"]) for record in records} == {
        (pid, records[0]["comm"], 0)
    }
    assert {record["target"] for record in records} == {records[0]["cgroup"]}


def without_capabilities_attach_to(pid: int) -> None:
    header = ctypes.create_string_buffer(struct.pack("<Ii", CAPABILITY_VERSION_3, 0), 8)
    assert deeds.syscall(CAPSET, header, bytes(24)) == 0
    for _ in range(TIMES):
        assert deeds.syscall(PTRACE, PTRACE_SEIZE, pid, 0, 0) == -1


def test_what_a_module_refuses_has_its_answer() -> None:
    """The module is the one for capabilities, which every kernel has."""
    with Tracer("trace_lsm", hook="ptrace_access_check", denied=True) as tracer:
        if "ptrace_access_check_module" in tracer.programs:
            pytest.skip("only fexit knows the answer")
        child, code = deeds.in_child(lambda: without_capabilities_attach_to(os.getppid()))
        records = [record for record in tracer.records() if record["pid"] == child]
    assert code == 0
    assert len(records) == TIMES
    told = {(record["target_pid"], record["verdict"], record["argument_1"]) for record in records}
    assert told == {(os.getpid(), 1, PTRACE_ATTACH_REALCREDS)}


def test_what_is_allowed_is_left_out_when_only_refusals_are_asked_for() -> None:
    assert asked("file_open", lambda: deeds.openat(b"/etc/passwd", os.O_RDONLY), denied=True) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_address_is_asked_about(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET

    def deed() -> None:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((host, 4321))

    (record,) = asked("socket_connect", deed)
    assert (record["argument_1"], address(record["address"]), record["port"]) == (family, host, 4321)


def test_the_path_of_a_unix_socket_is_asked_about(tmp_path: Path) -> None:
    def deed() -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(tmp_path / "s"))

    (record,) = asked("socket_bind", deed)
    assert (record["argument_1"], record["name"], record["port"]) == (1, str(tmp_path / "s"), 0)


def test_a_mount_is_asked_about_with_its_type() -> None:
    def deed() -> None:
        os.unshare(os.CLONE_NEWNS)
        libc = ctypes.CDLL(None)
        assert libc.mount(b"none", b"/", None, ctypes.c_ulong(0x44000), None) == 0
        assert libc.mount(b"source", b"/mnt", b"tmpfs", ctypes.c_ulong(2), None) == 0

    with Tracer("trace_lsm", hook="sb_mount") as tracer:
        pid, code = deeds.in_child(deed)
        records = [record for record in tracer.records() if record["pid"] == pid]
    assert code == 0
    record = records[-1]
    assert (record["path"], record["name"], record["file_system"]) == ("/mnt", "source", "tmpfs")
    assert record["argument_1"] & 2
