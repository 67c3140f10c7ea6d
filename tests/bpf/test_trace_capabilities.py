"""trace capabilities: calls that need a known capability, a prime number of times, with and without it."""

import mmap
import os
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.bpf import deeds
from tests.bpf.deeds import syscall
from tests.bpf.one_hook import one_hook
from tests.bpf.tracer import Tracer

pytestmark = pytest.mark.bpf
TIMES = 31
SETHOSTNAME, CHROOT, SETUID = (170, 161, 105) if deeds.X86 else (161, 51, 146)
SETDOMAINNAME = 171 if deeds.X86 else 162
READ, MMAP = (0, 9) if deeds.X86 else (63, 222)
CAP_SYS_CHROOT, CAP_SYS_PTRACE, CAP_SYS_ADMIN = 18, 19, 21
NOT_AUDITED = 2
EPERM = 1
NOBODY = 65534


def traced(deed: Callable[[], object], **parameters: Any) -> list[dict[str, Any]]:
    """The records of `deed`, run in a child."""
    with Tracer("trace_capabilities", **parameters) as tracer:
        pid, code = deeds.in_child(deed)
        records = [record for record in tracer.records() if record["pid"] == pid]
        assert tracer.lost == 0
    assert code == 0
    return records


def chroots(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record for record in records if record["syscall"] == CHROOT]


def test_each_check_that_succeeds_is_seen_once() -> None:
    def deed() -> None:
        for _ in range(TIMES):
            assert syscall(CHROOT, b"/") == 0

    records = chroots(traced(deed))
    assert [(record["capability"], record["errno"]) for record in records] == [(CAP_SYS_CHROOT, 0)] * TIMES
    assert all(record["effective"] & (1 << CAP_SYS_CHROOT) for record in records)
    (namespace,) = {record["user_ns"] for record in records} | {record["target_user_ns"] for record in records}
    assert os.readlink("/proc/self/ns/user") == f"user:[{namespace}]"
    assert {record["stack"] for record in records} == {None}


def test_each_check_that_fails_is_seen_once_with_denied() -> None:
    def deed() -> None:
        assert syscall(CHROOT, b"/") == 0
        assert syscall(SETUID, NOBODY) == 0
        for _ in range(TIMES):
            assert syscall(CHROOT, b"/") == -EPERM

    records = traced(deed, denied=True)
    assert {record["errno"] for record in records} == {EPERM}
    records = chroots(records)
    assert [record["capability"] for record in records] == [CAP_SYS_CHROOT] * TIMES
    assert {(record["effective"], record["uid"]) for record in records} == {(0, NOBODY)}


def test_unique_shows_each_capability_and_verdict_once() -> None:
    def deed() -> None:
        for _ in range(TIMES):
            assert syscall(CHROOT, b"/") == 0
        assert syscall(SETUID, NOBODY) == 0
        for _ in range(TIMES):
            assert syscall(CHROOT, b"/") == -EPERM

    records = chroots(traced(deed, unique=True))
    assert [record["errno"] for record in records] == [0, EPERM]


def test_only_the_capability_asked_for_is_sent() -> None:
    def deed() -> None:
        assert syscall(CHROOT, b"/") == 0
        assert syscall(SETHOSTNAME, b"", -1) < 0

    records = traced(deed, capability=CAP_SYS_ADMIN)
    assert [(record["capability"], record["syscall"]) for record in records] == [(CAP_SYS_ADMIN, SETHOSTNAME)]


def test_the_kernels_stack_leads_to_the_system_call() -> None:
    records = chroots(traced(lambda: syscall(CHROOT, b"/"), stack=True, capability=CAP_SYS_CHROOT))
    (record,) = records
    assert any("chroot" in frame for frame in record["stack"])


@pytest.mark.parametrize(
    ("hooks", "audited"),
    [(("checked_tracepoint",), 0), (("checked_fexit",), 1), (("checked_starts", "checked_ends"), 1)],
)
def test_each_hook_sees_the_same_but_for_the_audit(hooks: tuple[str, ...], audited: int) -> None:
    def deed() -> None:
        assert syscall(CHROOT, b"/") == 0
        assert syscall(SETUID, NOBODY) == 0
        for _ in range(TIMES):
            assert syscall(CHROOT, b"/") == -EPERM

    with one_hook("trace_capabilities", *hooks, stack=True) as tracer:
        pid, code = deeds.in_child(deed)
        records = chroots([record for record in tracer.records() if record["pid"] == pid])
    assert code == 0
    assert [record["errno"] for record in records] == [0, *[EPERM] * TIMES]
    assert {record["audited"] for record in records} == {audited}
    assert all(any("chroot" in frame for frame in record["stack"]) for record in records)


def test_what_the_kernel_asks_for_itself_is_left_out_unless_asked_for() -> None:
    def deed() -> None:
        assert syscall(SETUID, NOBODY) == 0
        for _ in range(TIMES):
            mmap.mmap(-1, 1 << 20).close()
            with open("/proc/1/stat", "rb", buffering=0) as file:  # some of its numbers are for those who may trace it
                file.read(1024)
            assert syscall(CHROOT, b"/") == -EPERM

    def refused(**parameters: bool) -> list[tuple[int, int]]:
        records = traced(deed, denied=True, **parameters)
        return [(item["capability"], item["audited"]) for item in records if item["syscall"] in (CHROOT, MMAP, READ)]

    assert {capability for capability, _ in refused()} == {CAP_SYS_CHROOT}
    # Of pages where the compiler has not made one function of two, as in 6.12; of /proc as kernels are configured.
    unaudited = [capability for capability, audited in refused(unaudited=True) if audited == NOT_AUDITED]
    assert max(Counter(unaudited).values()) >= TIMES
    assert set(unaudited) <= {CAP_SYS_ADMIN, CAP_SYS_PTRACE}


def test_with_a_stack_unique_distinguishes_ways() -> None:
    def deed() -> None:
        for _ in range(TIMES):
            assert syscall(CHROOT, b"/") == 0

    once = chroots(traced(deed, unique=True))
    ways = chroots(traced(deed, unique=True, stack=True))
    assert len(once) == len(ways) == 1
    assert any("chroot" in name for name in ways[0]["stack"])

    def two_ways() -> None:
        for _ in range(TIMES):
            # Both ask for CAP_SYS_ADMIN.
            syscall(SETHOSTNAME, b"x" * 65, 65)
            syscall(SETDOMAINNAME, b"x" * 65, 65)

    def of_two(records: list[dict[str, Any]]) -> int:
        mine = [item for item in records if item["syscall"] in (SETHOSTNAME, SETDOMAINNAME)]
        return len([item for item in mine if item["capability"] == CAP_SYS_ADMIN])

    assert of_two(traced(two_ways, unique=True, stack=True)) == 2


def test_a_program_that_the_process_executes_is_another_one_for_unique() -> None:
    def deed() -> None:
        assert syscall(CHROOT, b"/") == 0
        script = f"import ctypes; [ctypes.CDLL(None).syscall({CHROOT}, b'/') for _ in range({TIMES})]"
        os.execv(sys.executable, [sys.executable, "-c", script])

    assert len(chroots(traced(deed, unique=True))) == 2
