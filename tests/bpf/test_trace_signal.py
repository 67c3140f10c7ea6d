"""trace signal: known signals between known processes, a prime number of times."""

import ctypes
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.bpf import deeds
from tests.bpf.network_pods import CLONE_NEWPID
from tests.bpf.test_filters import Tree, id_of, tree  # noqa: F401
from tests.bpf.tracer import Tracer

pytestmark = pytest.mark.bpf
TIMES = 31
X86 = deeds.X86
TKILL, TGKILL, SIGQUEUE = (200, 234, 129) if X86 else (130, 131, 138)
PIDFD_SEND_SIGNAL = 424
SI_USER, SI_KERNEL, SI_QUEUE, SI_TIMER, SI_TKILL = 0, 0x80, -1, -2, -6
DELIVERED, IGNORED, PENDING, FAILED = 1, 2, 3, 6
NOBODY = 0x7FFFFFF0
ESRCH, EPERM, EINVAL = 3, 1, 22


@pytest.fixture
def receiver() -> Iterator[int]:
    """The pid of a process that waits and ignores SIGUSR1."""
    pid = sleeper()
    yield pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def sleeper(cgroup: str | None = None) -> int:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGUSR1, lambda *_: None)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        if cgroup:
            with open(f"{cgroup}/cgroup.procs", "w") as file:
                file.write("0")
        os.write(write, b"x")
        while True:
            signal.pause()
    os.read(read, 1)
    os.close(read)
    os.close(write)
    return pid


def sent(tracer: Tracer, receiver: int, number: int = signal.SIGUSR1) -> list[dict[str, Any]]:
    return [record for record in tracer.records() if record["receiver_pid"] == receiver and record["signal"] == number]


def test_each_signal_is_seen_once_with_sender_and_receiver(receiver: int) -> None:
    with Tracer("trace_signal") as tracer:
        for _ in range(TIMES):
            os.kill(receiver, signal.SIGUSR1)
        records = sent(tracer, receiver)
        assert tracer.lost == 0
    assert len(records) == TIMES
    assert {record["pid"] for record in records} == {os.getpid()}
    assert {record["result"] for record in records} <= {DELIVERED, PENDING}
    first = records[0]
    assert (first["receiver_tid"], first["receiver_uid"], first["group"]) == (receiver, os.getuid(), 1)
    assert first["receiver_comm"] == first["comm"]
    assert (first["code"], first["errno"], first["target"]) == (SI_USER, 0, -(1 << 31))
    assert first["receiver"] == first["cgroup"]


def test_an_ignored_signal_says_so(receiver: int) -> None:
    with Tracer("trace_signal") as tracer:
        os.kill(receiver, signal.SIGUSR2)
        (record,) = sent(tracer, receiver, signal.SIGUSR2)
    assert record["result"] == IGNORED


def test_a_signal_for_one_thread_says_so(receiver: int) -> None:
    with Tracer("trace_signal") as tracer:
        assert deeds.syscall(TGKILL, receiver, receiver, signal.SIGUSR1) == 0
        (record,) = sent(tracer, receiver)
    assert (record["code"], record["group"]) == (SI_TKILL, 0)


def test_the_signal_of_a_child_that_ends_comes_from_the_child() -> None:
    with Tracer("trace_signal") as tracer:
        pid, _ = deeds.in_child(lambda: None)
        records = sent(tracer, os.getpid(), signal.SIGCHLD)
    (record,) = [record for record in records if record["pid"] == pid]
    assert record["code"] == 1  # CLD_EXITED


def test_the_signal_of_a_timer_comes_from_the_receiver_itself() -> None:
    def deed() -> None:
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        signal.pause()

    with Tracer("trace_signal") as tracer:
        pid, code = deeds.in_child(deed)
        (record,) = sent(tracer, pid, signal.SIGALRM)
    assert code == 0
    assert (record["pid"], record["code"], record["ppid"]) == (pid, SI_KERNEL, os.getpid())


@pytest.mark.parametrize(
    ("call", "arguments", "code", "target", "errno"),
    [
        ("kill", (62 if X86 else 129, NOBODY, 10), SI_USER, NOBODY, ESRCH),
        ("kill", (62 if X86 else 129, -NOBODY, 10), SI_USER, -NOBODY, ESRCH),
        ("kill", (62 if X86 else 129, 1, 99), SI_USER, 1, EINVAL),
        ("tkill", (TKILL, NOBODY, 10), SI_TKILL, NOBODY, ESRCH),
        ("tgkill", (TGKILL, 1, NOBODY, 10), SI_TKILL, NOBODY, ESRCH),
        ("sigqueue", (SIGQUEUE, NOBODY, 10, bytes(128)), SI_QUEUE, NOBODY, EPERM),
        ("pidfd", (PIDFD_SEND_SIGNAL, 9999, 10, None, 0), SI_USER, 9999, 9),
    ],
)
def test_a_call_that_fails_says_why(call: str, arguments: tuple[Any, ...], code: int, target: int, errno: int) -> None:
    with Tracer("trace_signal", failed=True) as tracer:
        for _ in range(TIMES):
            result = deeds.syscall(*arguments)
        records = [record for record in tracer.records() if record["pid"] == os.getpid()]
    assert result < 0
    assert len(records) == TIMES
    fields = ("signal", "code", "target", "errno", "result", "receiver", "receiver_pid")
    assert {tuple(record[name] for name in fields) for record in records} == {
        (arguments[-1 if call in ("kill", "tkill", "tgkill") else 2], code, target, -result, FAILED, 0, 0)
    }
    assert -result == errno or call == "sigqueue"


def test_kill_only_drops_what_the_kernel_sends(receiver: int) -> None:
    with Tracer("trace_signal", kill_only=True) as tracer:
        deeds.in_child(lambda: None)
        os.kill(receiver, signal.SIGUSR1)
        records = [record for record in tracer.records() if os.getpid() in (record["pid"], record["receiver_pid"])]
    assert [record["signal"] for record in records] == [signal.SIGUSR1]


def test_only_the_signal_and_the_receiver_asked_for_are_sent(receiver: int) -> None:
    other = sleeper()
    with Tracer("trace_signal", signal=int(signal.SIGUSR1), receiver_pid=receiver) as tracer:
        for pid in (receiver, other):
            for number in (signal.SIGUSR1, signal.SIGUSR2):
                os.kill(pid, number)
        records = tracer.records()
    os.kill(other, signal.SIGKILL)
    os.waitpid(other, 0)
    assert [(record["receiver_pid"], record["signal"]) for record in records] == [(receiver, signal.SIGUSR1)]


@pytest.mark.parametrize(("sender", "target", "seen"), [(1, 2, 1), (2, 1, 1), (1, 1, 1), (2, 2, 0)])
def test_a_signal_is_sent_when_sender_or_receiver_is_wanted(
    tree: Tree,  # noqa: F811
    sender: int,
    target: int,
    seen: int,
) -> None:
    """Verdict 1 is WANTED, 2 UNWANTED."""
    receiver = sleeper(str(tree.nested))

    def deed() -> None:
        (tree.container / "cgroup.procs").write_text("0")
        os.kill(receiver, signal.SIGUSR1)

    with Tracer("trace_signal", verdicts={id_of(tree.container): sender, id_of(tree.nested): target}) as tracer:
        pid, code = deeds.in_child(deed)
        records = sent(tracer, receiver)
    os.kill(receiver, signal.SIGKILL)
    os.waitpid(receiver, 0)
    assert code == 0
    assert len(records) == seen
    for record in records:
        assert (record["pid"], record["cgroup"]) == (pid, id_of(tree.container))
        assert record["receiver"] == id_of(tree.nested)


@pytest.mark.parametrize(
    ("number", "is_parent", "shown", "seen"),
    [
        (signal.SIGURG, True, False, 0),
        (signal.SIGURG, True, True, 1),
        (signal.SIGURG, False, False, 1),
        (signal.SIGUSR1, True, False, 1),
    ],
)
def test_what_a_runtime_forwards_from_its_own_scheduler_is_left_out_unless_it_is_asked_for(
    tree: Tree,  # noqa: F811
    number: signal.Signals,
    is_parent: bool,
    shown: bool,
    seen: int,
) -> None:
    """Like runc, the parent is in neither the PID namespace nor the cgroup of the process. `is_parent`: it sends the
    signal, not a sibling of the process."""

    def deed() -> None:
        (tree.container / "cgroup.procs").write_text("0")
        read, write = os.pipe()
        sibling = os.fork()
        if sibling == 0:
            os.kill(int(os.read(read, 20)), number)
            os._exit(0)
        assert ctypes.CDLL(None).unshare(CLONE_NEWPID) == 0
        receiver = sleeper(str(tree.nested))
        if is_parent:
            os.kill(receiver, number)
            os.kill(sibling, signal.SIGKILL)
        else:
            os.write(write, str(receiver).encode())
        os.waitpid(sibling, 0)
        os.kill(receiver, signal.SIGKILL)
        os.waitpid(receiver, 0)

    verdicts = {id_of(tree.container): 1, id_of(tree.nested): 1}
    with Tracer("trace_signal", verdicts=verdicts, variables={"gadget_show_runtime": shown}) as tracer:
        _, code = deeds.in_child(deed)
        records = [record for record in tracer.records() if record["receiver"] == id_of(tree.nested)]
    assert code == 0
    assert [record["signal"] for record in records].count(number) == seen
