"""snapshot process: what threads wait for, and who holds it. The processes and their waits are real."""

import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from kubectl_gadget.agent.bpf.maps import Batches
from tests.bpf.stacks import StackAnswers

pytestmark = pytest.mark.bpf
KNOWN, LIKELY = 1, 2
FLOCK, RECORD_LOCK, LEASE, PIPE, UNIX, TCP = 1, 2, 3, 4, 5, 6
CLIENT, FUTEX, MUTEX, THREAD, CHILD, TIMER = 9, 10, 11, 12, 13, 14
EVENTS = 16
CAUGHT, IGNORED, BLOCKED, ENDS = 1, 2, 3, 4
F_SETLEASE = 1024

DEADLOCK = r"""
#include <pthread.h>
#include <unistd.h>
static pthread_mutex_t a = PTHREAD_MUTEX_INITIALIZER, b = PTHREAD_MUTEX_INITIALIZER, pi;
static pthread_barrier_t both;
static void *other(void *unused)
{
    pthread_mutex_lock(&b);
    pthread_barrier_wait(&both);
    pthread_mutex_lock(&a);
    return unused;
}
static void *third(void *unused)
{
    pthread_mutex_lock(&pi);
    return unused;
}
int main(void)
{
    pthread_t thread, one_more;
    pthread_mutexattr_t kind;
    pthread_barrier_init(&both, 0, 2);
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_setprotocol(&kind, PTHREAD_PRIO_INHERIT);
    pthread_mutex_init(&pi, &kind);
    pthread_mutex_lock(&pi);
    pthread_mutex_lock(&a);
    pthread_create(&thread, 0, other, 0);
    pthread_create(&one_more, 0, third, 0);
    pthread_barrier_wait(&both);
    pthread_mutex_lock(&b);
    return 0;
}
"""


@contextmanager
def child(act: Callable[[], object]) -> Iterator[int]:
    """A process that does this, and would then end."""
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(200)
            act()
        finally:
            os._exit(1)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.fixture(scope="module", autouse=True)
def answers() -> Iterator[None]:
    """One gadget for all tests: the kernel takes seconds to check its programs."""
    with StackAnswers("snapshot_process", threads=True) as gadget:
        _answers[:] = [gadget]
        yield


_answers: list[Any] = []


def taken() -> dict[int, dict[str, Any]]:
    (gadget,) = _answers
    rows = {row["tid"]: row for row in gadget.take()}
    assert gadget.lost == 0
    # A session takes one answer, and so begins with an empty map.
    for _ in Batches(gadget.object.required_map("gadget_awaited"), 256).take():
        pass
    return rows


def waits(pid: int, call: int | None = None) -> dict[str, Any]:
    """The row of the process when it sleeps in a wait that has a kind, and slept so in the snapshot before: in the
    first one, it may have gone to sleep between the passes."""
    deadline = time.monotonic() + 60
    before = None
    while True:
        row = taken()[pid]
        kind = row["waits_for"]
        if kind and kind == before and (call is None or kind == call):
            return row
        before = kind
        assert time.monotonic() < deadline, row
        time.sleep(0.1)


def holder(row: dict[str, Any]) -> tuple[int, int]:
    return row["holder_pid"], row["certainty"]


def test_the_owner_of_a_lock_of_a_file_is_who_has_the_file_now(tmp_path: Path) -> None:
    """A process that only inherited the lock has it, too, when the one that took it has ended."""
    with open(tmp_path / "locked", "w") as file, open(tmp_path / "locked", "w") as other:
        fcntl.flock(file, fcntl.LOCK_EX)
        with child(lambda: (file.close(), fcntl.flock(other, fcntl.LOCK_SH))) as pid:
            row = waits(pid, FLOCK)
    assert holder(row) == (os.getpid(), KNOWN)
    assert row["wait_fd"] == other.fileno() if not other.closed else row["wait_fd"] >= 0
    assert row["wait_inode"] == os.stat(tmp_path / "locked").st_ino
    assert any("lock" in name for name in row["kernel_stack"])


@pytest.mark.parametrize("command", [fcntl.F_SETLKW, 38])
def test_a_record_lock_is_one_that_overlaps(tmp_path: Path, command: int) -> None:
    """38: F_OFD_SETLKW."""

    def lock(file: Any, how: int, start: int) -> None:
        fcntl.fcntl(file, how, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, start, 10, 0))

    path = tmp_path / "locked"
    path.touch()

    def hold(start: int) -> None:
        file = open(path, "r+")
        lock(file, command, start)
        signal.pause()

    with child(lambda: hold(0)) as first, child(lambda: hold(100)) as second:
        waits(first)
        waits(second)
        with child(lambda: lock(open(path, "r+"), command, 105)) as pid:
            row = waits(pid, RECORD_LOCK)
        assert holder(row) == (second, KNOWN)


def test_who_has_a_lease_keeps_others_from_opening(tmp_path: Path) -> None:
    path = tmp_path / "leased"
    path.touch()
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        with open(path, "r+") as file:
            fcntl.fcntl(file, F_SETLEASE, fcntl.F_WRLCK)
            with child(lambda: (file.close(), open(path))) as pid:
                row = waits(pid, LEASE)
            assert holder(row) == (os.getpid(), KNOWN)
    finally:
        signal.signal(signal.SIGIO, before)


def test_a_pipe_waits_for_its_other_end() -> None:
    reads, writes = os.pipe()
    try:
        with child(lambda: (os.close(writes), os.read(reads, 1))) as pid:
            row = waits(pid, PIPE)
            assert holder(row) == (os.getpid(), KNOWN)
            assert row["wait_fd"] == reads
            assert row["holders"] == 1
        os.set_blocking(writes, False)
        fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, 4096)
        assert os.write(writes, bytes(9999)) == 4096
        os.set_blocking(writes, True)
        with child(lambda: (os.close(reads), os.write(writes, bytes(9999)))) as pid:
            assert holder(waits(pid, PIPE)) == (os.getpid(), KNOWN)
    finally:
        os.close(reads)
        os.close(writes)


def test_a_socket_waits_for_its_peer() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, child(lambda: (ours.close(), theirs.recv(1))) as pid:
        theirs.close()
        assert holder(waits(pid, UNIX)) == (os.getpid(), KNOWN)
    with socket.create_server(("127.0.0.1", 0)) as server:
        with child(server.accept) as pid:
            assert holder(waits(pid, CLIENT)) == (0, 0)
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        with client, accepted, child(lambda: (accepted.close(), client.recv(1))) as pid:
            client.close()
            row = waits(pid, TCP)
            assert holder(row) == (os.getpid(), KNOWN)
            assert row["remote_port"] == server.getsockname()[1]


def test_poll_and_epoll_wait_for_who_can_wake_them() -> None:
    reads, writes = os.pipe()

    def by_epoll() -> None:
        os.close(writes)
        with select.epoll() as polled:
            polled.register(os.eventfd(0), select.EPOLLIN)
            polled.register(reads, select.EPOLLIN)
            polled.poll()

    def by_poll() -> None:
        os.close(writes)
        poll = select.poll()
        poll.register(reads, select.POLLIN)
        poll.poll()

    try:
        for wait in (by_poll, by_epoll):
            with child(wait) as pid:
                row = waits(pid, PIPE)
                assert (row["wait_fd"], *holder(row)) == (reads, os.getpid(), KNOWN)
    finally:
        os.close(reads)
        os.close(writes)


def test_threads_in_a_deadlock_name_each_other(tmp_path: Path) -> None:
    (tmp_path / "deadlock.c").write_text(DEADLOCK)
    subprocess.run(["gcc", "-pthread", "-o", tmp_path / "deadlock", tmp_path / "deadlock.c"], check=True)
    with subprocess.Popen([tmp_path / "deadlock"]) as process:
        try:
            deadline = time.monotonic() + 60
            while (
                len(rows := {t: r for t, r in taken().items() if r["pid"] == process.pid and r["waits_for"] == MUTEX})
                < 3
            ):
                assert time.monotonic() < deadline, rows
                time.sleep(0.1)
        finally:
            process.kill()
    first = process.pid
    second, third = sorted(rows.keys() - {first})
    assert {tid: row["holder_tid"] for tid, row in rows.items()} == {first: second, second: first, third: first}
    # A mutex with priority inheritance is the kernel's matter, too.
    assert [rows[tid]["certainty"] for tid in (first, second, third)] == [LIKELY, LIKELY, KNOWN]


def test_join_waits_for_a_thread_and_wait_for_a_child(tmp_path: Path) -> None:
    program = tmp_path / "join.c"
    program.write_text(
        "#include <pthread.h>\n#include <unistd.h>\n"
        "static void *f(void *x) { pause(); return x; }\n"
        "int main(void) { pthread_t t; pthread_create(&t, 0, f, 0); pthread_join(t, 0); }\n"
    )
    subprocess.run(["gcc", "-pthread", "-o", tmp_path / "join", program], check=True)
    with subprocess.Popen([tmp_path / "join"]) as process:
        row = waits(process.pid, THREAD)
        (other,) = {tid for tid, row in taken().items() if row["pid"] == process.pid} - {process.pid}
        process.kill()
    assert (row["holder_tid"], row["certainty"]) == (other, KNOWN)
    with subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; sleep 50; true"], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        row = waits(process.pid, CHILD)
        process.kill()
        subprocess.run(["pkill", "-P", str(process.pid)], check=False)
        assert row["holder_comm"] == "sleep"
        for pid in (row["holder_pid"],):
            os.kill(pid, signal.SIGKILL)


def test_the_time_is_since_the_thread_last_ran() -> None:
    with child(lambda: time.sleep(50)) as pid:
        first = waits(pid, TIMER)
        begun = time.monotonic_ns()
        time.sleep(1)
        second = waits(pid, TIMER)
        passed = time.monotonic_ns() - begun
    assert 900_000_000 < second["waiting"] - first["waiting"] < passed + 10**9
    own = taken()[threading.get_native_id()]
    assert (own["state"], own["waiting"], own["syscall"]) == (0, 2**64 - 1, -1)


def test_signals_of_a_process() -> None:
    def pause(handler: Any) -> Callable[[], object]:
        return lambda: (signal.signal(signal.SIGTERM, handler), signal.pause())

    def block() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        signal.pause()

    bit = 1 << (signal.SIGTERM - 1)
    with ExitStack() as stack:
        ways = [pause(lambda *_: None), pause(signal.SIG_IGN), block, pause(signal.SIG_DFL)]
        pids = [stack.enter_context(child(way)) for way in ways]
        rows = [waits(pid) for pid in pids]
    assert [row["on_sigterm"] for row in rows] == [CAUGHT, IGNORED, BLOCKED, ENDS]
    found = [[bool(row[f"signals_{name}"] & bit) for name in ("caught", "ignored", "blocked")] for row in rows]
    assert found == [[True, False, False], [False, True, False], [False, False, True], [False, False, False]]


def test_a_pid_1_without_a_handler_does_not_feel_sigterm() -> None:
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_DFL); print(flush=True); signal.pause()"
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        (row,) = [row for row in taken().values() if row["ppid"] == process.pid]
        process.kill()
    assert row["on_sigterm"] == 5
    assert row["container_pid"] == 1


def test_a_parent_in_vfork_is_blocked(tmp_path: Path) -> None:
    """The parent is in the state D until its child has executed a program or ended."""
    program = tmp_path / "vfork.c"
    program.write_text("#include <unistd.h>\nint main(void) { if (!vfork()) { sleep(50); _exit(0); } }\n")
    subprocess.run(["gcc", "-o", tmp_path / "vfork", program], check=True)
    with subprocess.Popen([tmp_path / "vfork"]) as process:
        children: list[int] = []
        while not children:
            rows = taken()
            children = [tid for tid, row in rows.items() if row["ppid"] == process.pid]
        for pid in (*children, process.pid):
            os.kill(pid, signal.SIGKILL)
    row = rows[process.pid]
    assert row["state"] & 2
    assert any("fork" in name or "clone" in name for name in row["kernel_stack"])
    assert row["syscall"] >= 0


def test_a_zombie_has_a_parent_and_no_call() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    row = taken()[pid]
    os.waitpid(pid, 0)
    assert row["state"] & 0x20
    assert (row["ppid"], row["syscall"], row["waits_for"], row["on_sigterm"]) == (os.getpid(), -1, 0, 0)
