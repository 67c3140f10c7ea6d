"""audit seccomp: real filters, each of which denies one call a prime number of times."""

import ctypes
import errno
import fcntl
import os
import signal
import struct
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.bpf.tracer import Tracer

pytestmark = pytest.mark.bpf
TIMES = 31
ERRNO, EMULATED, TRAP, KILL_PROCESS, KILL_THREAD, LOG = 1, 2, 3, 4, 5, 6
RET_KILL_PROCESS, RET_KILL_THREAD, RET_TRAP, RET_ERRNO, RET_LOG, RET_ALLOW = (
    0x80000000,
    0x00000000,
    0x00030000,
    0x00050000,
    0x7FFC0000,
    0x7FFF0000,
)
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, MODE_FILTER = 38, 22, 2
X86 = os.uname().machine == "x86_64"
# A call that nothing else in a test makes.
SYSINFO = 99 if X86 else 179
libc = ctypes.CDLL(None, use_errno=True)


RET_USER_NOTIF, SET_MODE_FILTER, NEW_LISTENER = 0x7FC00000, 1, 8
NOTIF_RECV, NOTIF_SEND = 0xC0502100, 0xC0182101
SECCOMP, RT_SIGQUEUEINFO = (317, 129) if X86 else (277, 138)
SYS_SECCOMP = 1


def filter_of(call: int, answer: int) -> tuple[bytes, Any]:
    """A filter that answers so to one call, and allows all others; and the memory that it is in."""
    program = [
        (0x20, 0, 0, 0),  # load the call's number
        (0x15, 0, 1, call),  # is it this one?
        (0x06, 0, 0, answer),
        (0x06, 0, 0, RET_ALLOW),
    ]
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    memory = ctypes.create_string_buffer(code, len(code))
    return struct.pack("HxxxxxxQ", len(program), ctypes.addressof(memory)), memory


def install(call: int, answer: int) -> None:
    head, _memory = filter_of(call, answer)
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.create_string_buffer(head, len(head))) == 0


def install_notified(call: int, result: int) -> None:
    """A filter for this thread, by which another thread gives the call this result."""
    listeners: list[int] = []
    is_installed = threading.Event()

    def supervise() -> None:
        is_installed.wait()
        while True:
            request = fcntl.ioctl(listeners[0], NOTIF_RECV, bytes(80))
            fcntl.ioctl(listeners[0], NOTIF_SEND, request[:8] + struct.pack("qiI", result, 0, 0))

    threading.Thread(target=supervise, daemon=True).start()
    head, _memory = filter_of(call, RET_USER_NOTIF)
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    listeners.append(libc.syscall(SECCOMP, SET_MODE_FILTER, NEW_LISTENER, ctypes.create_string_buffer(head, len(head))))
    is_installed.set()


def sysinfo() -> int:
    """The errno, 0 when it went well."""
    memory = ctypes.create_string_buffer(512)
    return ctypes.get_errno() if libc.syscall(SYSINFO, memory) else 0


def in_child(deed: Callable[[], None]) -> tuple[int, int]:
    """Runs it in a child; its pid and how it ended, as waitpid has it."""
    pid = os.fork()
    if pid == 0:
        try:
            deed()
        except BaseException:
            os._exit(99)
        os._exit(0)
    return pid, os.waitpid(pid, 0)[1]


def of(pid: int, tracer: Tracer) -> list[dict[str, Any]]:
    return [record for record in tracer.records() if record["pid"] == pid]


def test_calls_that_fail_by_a_filter_are_reported_with_their_errno_and_nothing_else_is() -> None:
    def deed() -> None:
        assert sysinfo() == 0
        install(SYSINFO, RET_ERRNO | errno.EPERM)
        for _ in range(TIMES):
            assert sysinfo() == errno.EPERM
            os.getppid()
        with pytest.raises(FileNotFoundError):
            open("/nowhere")

    with Tracer("audit_seccomp") as tracer:
        pid, status = in_child(deed)
        records = of(pid, tracer)
        assert tracer.lost == 0
    assert status == 0
    assert [(record["syscall"], record["action"], record["errno"]) for record in records] == [
        (SYSINFO, ERRNO, errno.EPERM)
    ] * TIMES


def test_children_and_threads_of_a_filtered_process_are_reported_too() -> None:
    def child() -> None:
        os._exit(sysinfo())

    def deed() -> None:
        install(SYSINFO, RET_ERRNO | errno.EACCES)
        threads = [threading.Thread(target=sysinfo) for _ in range(7)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for _ in range(5):
            _, status = in_child(child)
            assert os.waitstatus_to_exitcode(status) == errno.EACCES

    with Tracer("audit_seccomp") as tracer:
        pid, status = in_child(deed)
        records = tracer.records()
    assert status == 0
    mine = [record for record in records if record["pid"] == pid]
    assert [record["errno"] for record in mine] == [errno.EACCES] * 7
    assert len({record["tid"] for record in mine}) == 7
    assert len([record for record in records if record["ppid"] == pid]) == 5


def test_a_call_whose_emulated_result_is_its_own_number_is_reported() -> None:
    """A trap, for which the kernel restores the registers, would have this result too."""

    def deed() -> None:
        assert sysinfo() == 0
        install_notified(SYSINFO, SYSINFO)
        for _ in range(TIMES):
            assert libc.syscall(SYSINFO, None) == SYSINFO

    with Tracer("audit_seccomp") as tracer:
        pid, status = in_child(deed)
        records = of(pid, tracer)
    assert status == 0
    assert [(record["syscall"], record["action"]) for record in records] == [(SYSINFO, EMULATED)] * TIMES


def test_a_signal_that_a_process_sends_to_itself_is_no_trap() -> None:
    """It looks like the kernel's, but the call that sends it was allowed."""

    def deed() -> None:
        signal.signal(signal.SIGSYS, lambda number, frame: None)
        install(SYSINFO, RET_ERRNO | errno.EPERM)
        info = struct.pack("iiixxxxQii", signal.SIGSYS, 0, SYS_SECCOMP, 0, SYSINFO, 0).ljust(128, b"\0")
        for _ in range(TIMES):
            assert libc.syscall(RT_SIGQUEUEINFO, os.getpid(), signal.SIGSYS, info) == 0
        assert sysinfo() == errno.EPERM

    with Tracer("audit_seccomp") as tracer:
        pid, status = in_child(deed)
        records = of(pid, tracer)
    assert status == 0
    assert [(record["syscall"], record["action"]) for record in records] == [(SYSINFO, ERRNO)]


def test_a_trap_is_reported_once_each_time() -> None:
    caught = []

    def deed() -> None:
        signal.signal(signal.SIGSYS, lambda number, frame: caught.append(number))
        install(SYSINFO, RET_TRAP | 7)
        for _ in range(TIMES):
            sysinfo()
        assert len(caught) == TIMES

    with Tracer("audit_seccomp") as tracer:
        pid, status = in_child(deed)
        records = of(pid, tracer)
    assert status == 0
    assert [(record["syscall"], record["action"]) for record in records] == [(SYSINFO, TRAP)] * TIMES


@pytest.mark.parametrize("answer", [RET_KILL_PROCESS, RET_KILL_THREAD])
def test_a_call_that_kills_a_process_is_reported(answer: int) -> None:
    def deed() -> None:
        install(SYSINFO, answer)
        sysinfo()

    with Tracer("audit_seccomp", killed=True) as tracer:
        pid, status = in_child(deed)
        records = of(pid, tracer)
    assert os.WTERMSIG(status) == signal.SIGSYS
    assert [(record["syscall"], record["action"]) for record in records] == [(SYSINFO, KILL_PROCESS)]


def test_a_call_that_kills_a_thread_is_reported() -> None:
    def deed() -> None:
        def in_thread() -> None:
            install(SYSINFO, RET_KILL_THREAD)
            sysinfo()

        threading.Thread(target=in_thread, daemon=True).start()
        while len(os.listdir("/proc/self/task")) > 1:
            os.sched_yield()
        os._exit(0)

    with Tracer("audit_seccomp") as tracer:
        pid, status = in_child(deed)
        records = of(pid, tracer)
    assert status == 0
    assert [(record["syscall"], record["action"]) for record in records] == [(SYSINFO, KILL_THREAD)]


def test_only_the_calls_that_were_asked_for_are_reported() -> None:
    def deed() -> None:
        install(SYSINFO, RET_ERRNO | errno.EPERM)
        sysinfo()

    with Tracer("audit_seccomp", killed=True) as tracer:
        pid, _ = in_child(deed)
        assert of(pid, tracer) == []


def test_a_call_that_is_only_logged_is_reported_where_the_kernel_lets_functions_be_followed() -> None:
    def deed() -> None:
        install(SYSINFO, RET_LOG)
        for _ in range(TIMES):
            assert sysinfo() == 0

    with Tracer("audit_seccomp") as tracer:
        if not {"logged", "logged_by_kprobe"} & set(tracer.programs):
            pytest.skip("this kernel has neither fentry nor kprobes")
        pid, status = in_child(deed)
        records = of(pid, tracer)
    assert status == 0
    assert [(record["syscall"], record["action"]) for record in records] == [(SYSINFO, LOG)] * TIMES
