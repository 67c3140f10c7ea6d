"""trace process: shells and processes of a known shape, a prime number of times, each with its program and parent."""

import ctypes
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.wire.policy_events import ExecId
from tests.bpf import deeds
from tests.bpf.tracer import Tracer, kept

pytestmark = pytest.mark.bpf
TIMES = 31
TRUE = os.path.realpath("/bin/true")
SHELL = os.path.realpath("/bin/sh")
UNSHARE = 272 if deeds.X86 else 97
NEWUTS = 0x04000000


def exec_id(number: int) -> ExecId:
    """Tracer gives a struct as one number."""
    return ExecId(number & (1 << 64) - 1, number >> 64)


class Life:
    """What was seen of one process, by what happened."""

    def __init__(self, records: list[dict[str, Any]], pid: int) -> None:
        self.records = [record for record in records if record["pid"] == pid]

    @property
    def words(self) -> list[str]:
        return [record["operation"] for record in self.records]

    def ids(self, operation: str) -> list[ExecId]:
        return [exec_id(record["exec_id"]) for record in self.records if record["operation"] == operation]

    def one(self, operation: str) -> dict[str, Any]:
        (record,) = [record for record in self.records if record["operation"] == operation]
        return record


def below(records: list[dict[str, Any]], pid: int) -> Iterator[int]:
    """All descendants of a process, by the records of forks."""
    for record in records:
        if record["operation"] == "fork" and record["ppid"] == pid:
            yield record["pid"]
            yield from below(records, record["pid"])


@pytest.fixture
def tracer() -> Tracer:
    return kept("trace_process")


def run(tracer: Tracer, script: str) -> tuple[int, list[dict[str, Any]]]:
    """Runs a shell; its pid and all records."""
    lost = tracer.lost
    shell = subprocess.Popen(["/bin/sh", "-c", script])
    shell.wait()
    records = tracer.records()
    assert tracer.lost == lost
    return shell.pid, records


def test_a_process_is_forked_executes_and_ends_under_known_ids(tracer: Tracer) -> None:
    pid, records = run(tracer, "exit 7")
    life = Life(records, pid)
    assert life.words == ["fork", "exec", "exit"]
    (forked,), (executed,), (ended,) = life.ids("fork"), life.ids("exec"), life.ids("exit")
    assert executed == ended == ExecId(forked.started + 1, pid)
    assert life.one("exit")["code"] == 7
    assert life.one("exec")["args"] == ["/bin/sh", "-c", "exit 7"]
    assert life.one("exec")["exe"] == SHELL
    assert {exec_id(record["parent_exec_id"]).pid for record in life.records} == {os.getpid()}


def test_each_program_of_a_chain_of_execs_has_its_own_id_and_the_same_parent(tracer: Tracer) -> None:
    pid, records = run(tracer, "exec sh -c 'exec sh -c \"exec true\"'")
    life = Life(records, pid)
    assert life.words == ["fork", *["exec"] * 4, "exit"]
    ids = life.ids("exec")
    assert [item.started - ids[0].started for item in ids] == [0, 1, 2, 3]
    assert life.ids("exit") == ids[-1:]
    assert len({record["parent_exec_id"] for record in life.records}) == 1


def test_the_children_of_pipes_and_subshells_name_the_program_that_forked_them(tracer: Tracer) -> None:
    pid, records = run(tracer, "true | sh -c 'exit 3' | (sh -c 'exit 5'; exit 11); exit 13")
    by_id = {record["exec_id"]: record for record in records if record["operation"] in ("exec", "fork")}
    children = list(below(records, pid))
    exits = {child: Life(records, child).one("exit")["code"] for child in [*children, pid]}
    assert sorted(exits.values()) == [0, 3, 5, 11, 13]
    for child in children:
        fork = Life(records, child).one("fork")
        parent = by_id[fork["parent_exec_id"]]
        assert parent["pid"] == fork["ppid"]
        assert fork["exe"] == SHELL
    (subshell,) = [child for child, code in exits.items() if code == 11]
    assert Life(records, subshell).words == ["fork", "exit"]
    (inner,) = [child for child, code in exits.items() if code == 5]
    assert Life(records, inner).one("exec")["ppid"] == subshell


def test_short_processes_are_not_mixed_up(tracer: Tracer) -> None:
    pid, records = run(
        tracer, "\n".join(f"sh -c 'exit {number}' x{number}" for number in range(1, TIMES + 1)) + "\nexit 0"
    )
    children = list(below(records, pid))
    lives = [Life(records, child) for child in children]
    assert len(children) == TIMES
    assert [life.words for life in lives] == [["fork", "exec", "exit"]] * TIMES
    assert [life.one("exec")["args"][-1] for life in lives] == [f"x{number}" for number in range(1, TIMES + 1)]
    assert [life.one("exit")["code"] for life in lives] == list(range(1, TIMES + 1))
    assert all(life.ids("exec") == life.ids("exit") for life in lives)
    assert len({life.ids("exec")[0] for life in lives}) == TIMES


def test_a_number_that_is_used_again_is_another_process(tracer: Tracer) -> None:
    last = Path("/proc/sys/kernel/ns_last_pid")
    first, _ = deeds.in_child(lambda: os.execv(TRUE, ["first"]))
    try:
        last.write_text(str(first - 1))
    except OSError as error:
        pytest.skip(f"the next pid cannot be chosen here: {error}")
    second, _ = deeds.in_child(lambda: os.execv(TRUE, ["second"]))
    records = tracer.records()
    if first != second:
        pytest.skip(f"another process took the number {first}")
    one, other = Life(records, first).ids("exec")
    assert one.pid == other.pid == first
    assert one.started < other.started
    assert Life(records, first).ids("exit") == [one, other]


def test_a_thread_that_executes_goes_on_as_its_process(tracer: Tracer) -> None:
    def deed() -> None:
        threading.Thread(target=lambda: os.execv(TRUE, ["from a thread"])).start()
        signal.pause()

    pid, _ = deeds.in_child(deed)
    life = Life(tracer.records(), pid)
    assert life.words == ["fork", "exec", "exit"]
    assert life.one("exec")["tid"] == pid
    assert life.ids("exec")[0].started == life.ids("fork")[0].started + 1


def test_threads_are_not_processes_and_end_with_the_last(tracer: Tracer) -> None:
    def deed() -> None:
        threads = [threading.Thread(target=lambda: None) for _ in range(TIMES)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        os._exit(3)

    pid, code = deeds.in_child(deed)
    life = Life(tracer.records(), pid)
    assert (life.words, code) == (["fork", "exit"], 3)


def test_what_a_signal_ends_has_the_signal_and_no_code(tracer: Tracer) -> None:
    pid, _ = deeds.in_child(lambda: os.kill(os.getpid(), signal.SIGKILL))
    ended = Life(tracer.records(), pid).one("exit")
    assert (ended["code"], ended["signal"]) == (-1, signal.SIGKILL)


def test_credentials_are_those_at_the_time_of_the_event(tracer: Tracer) -> None:
    def deed() -> None:
        os.setgroups([])
        os.setresgid(1, 2, 3)
        os.setresuid(4, 5, 6)
        os.execv(TRUE, ["true"])

    pid, _ = deeds.in_child(deed)
    life = Life(tracer.records(), pid)
    forked, executed = life.one("fork"), life.one("exec")
    assert (forked["uid"], forked["euid"], forked["suid"]) == (0, 0, 0)
    assert forked["cap_effective"] != 0
    # exec copies the effective id to the saved one
    assert [executed[name] for name in ("uid", "euid", "suid", "fsuid")] == [4, 5, 5, 5]
    assert [executed[name] for name in ("gid", "egid", "sgid", "fsgid")] == [1, 2, 2, 2]
    assert (executed["cap_effective"], executed["cap_permitted"]) == (0, 0)


def test_rights_that_come_with_the_file_are_reported(tracer: Tracer, tmp_path: Path) -> None:
    program = tmp_path / "true"
    program.write_bytes(Path(TRUE).read_bytes())
    program.chmod(0o6755)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)

    def deed() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        os.execv(program, ["true"])

    pid, _ = deeds.in_child(deed)
    executed = Life(tracer.records(), pid).one("exec")
    assert (executed["gained"], executed["uid"], executed["euid"]) == (3, 65534, 0)


def test_namespaces_are_those_that_the_process_lives_in(tracer: Tracer) -> None:
    kinds = ("uts", "ipc", "mnt", "pid", "net", "user", "cgroup", "time", "pid_for_children", "time_for_children")
    own = {kind: os.stat(f"/proc/self/ns/{kind}").st_ino for kind in kinds if Path(f"/proc/self/ns/{kind}").exists()}

    def deed() -> None:
        deeds.syscall(UNSHARE, NEWUTS)
        os.execv(TRUE, ["true"])

    pid, _ = deeds.in_child(deed)
    life = Life(tracer.records(), pid)
    forked, executed = life.one("fork"), life.one("exec")
    assert {kind: forked[f"ns_{kind}"] for kind in own} == own
    assert executed["ns_uts"] not in (0, own["uts"])
    assert {kind: executed[f"ns_{kind}"] for kind in own if kind != "uts"} == {
        kind: number for kind, number in own.items() if kind != "uts"
    }
    assert not executed["ns_host"] & 1


def test_a_script_is_distinguished_from_a_program(tracer: Tracer, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    pids = [deeds.in_child(lambda path=path: os.execv(path, ["x"]))[0] for path in (str(script), TRUE)]
    records = tracer.records()
    executed = [Life(records, pid).one("exec") for pid in pids]
    assert [(record["interpreted"], record["exe"]) for record in executed] == [(1, SHELL), (0, TRUE)]


def test_a_program_without_a_name_has_no_links(tracer: Tracer) -> None:
    def deed() -> None:
        fd = os.memfd_create("nameless", 0)
        os.write(fd, Path(TRUE).read_bytes())
        os.execve(fd, ["true"], {})

    pid, _ = deeds.in_child(deed)
    executed = Life(tracer.records(), pid).one("exec")
    assert (executed["exe"], executed["links"]) == ("/memfd:nameless", 0)
    assert executed["inode"] != 0


def test_processes_that_were_there_are_reported_at_the_start(tmp_path: Path) -> None:
    sleepers = [subprocess.Popen(["sleep", "3600", f"0.{number}"], cwd=tmp_path) for number in range(TIMES)]
    try:
        with Tracer("trace_process") as tracer:
            records = [record for record in tracer.at_start if record["operation"] == "running"]
            found = {record["pid"]: record for record in records}
            assert len(records) == len(found)
            for number, sleeper in enumerate(sleepers):
                record = found[sleeper.pid]
                assert record["args"] == ["sleep", "3600", f"0.{number}"]
                assert record["exe"] == os.path.realpath(f"/proc/{sleeper.pid}/exe")
                assert record["cwd"] == str(tmp_path)
                assert exec_id(record["parent_exec_id"]).pid == os.getpid()
                sleeper.kill()
                sleeper.wait()
            ends = {r["pid"]: r["exec_id"] for r in tracer.records() if r["operation"] == "exit"}
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()
    assert all(ends[sleeper.pid] == found[sleeper.pid]["exec_id"] for sleeper in sleepers)


def test_the_identity_is_what_the_kernel_says_of_the_process(tracer: Tracer) -> None:
    """The time of the fork is that of /proc/PID/stat, to within a tick and the number of execs."""
    child = subprocess.Popen(["sleep", "3600"])
    ticks = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19])
    child.kill()
    child.wait()
    (identity,) = Life(tracer.records(), child.pid).ids("exec")
    tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    assert identity.started // tick == ticks
    assert ctypes.c_uint64(identity.started).value == identity.started
