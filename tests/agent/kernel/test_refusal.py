"""libbpf's words to cause and remedy."""

import errno
import os

import pytest

from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.kernel import refusal

VERIFIER = """libbpf: prog 'openat_exit': BPF program load failed: Permission denied
libbpf: prog 'openat_exit': -- BEGIN PROG LOAD LOG --
0: R1=ctx() R10=fp0
; return *nowhere; @ opens.bpf.c:48
0: (85) call bpf_get_current_task#35          ; R0_w=scalar()
1: (79) r0 = *(u64 *)(r0 +0)
R0 invalid mem access 'scalar'
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
-- END PROG LOAD LOG --
libbpf: prog 'openat_exit': failed to load: -13
libbpf: failed to load object 'opens'""".splitlines()


def reason(code: int, *log: str) -> tuple[str, str | None]:
    return refusal.reason(Failure("bpf_object__load", code, list(log)))


def test_the_verifiers_last_useful_lines_are_shown() -> None:
    why, _ = reason(errno.EACCES, *VERIFIER)
    assert why.splitlines()[-1] == "R0 invalid mem access 'scalar'"
    assert "processed" not in why
    assert "opens.bpf.c:48" in why


def test_the_program_that_failed_is_found() -> None:
    assert refusal.failed_program(VERIFIER) == "openat_exit"
    assert refusal.failed_program(["libbpf: nothing"]) is None


def test_a_missing_helper_names_the_kernel_that_has_it() -> None:
    line = "program of this type cannot use helper bpf_task_pt_regs#175"
    why, remedy = reason(errno.EINVAL, "-- BEGIN PROG LOAD LOG --", line)
    assert "bpf_task_pt_regs" in why
    assert remedy == "Linux 5.15 or newer"


@pytest.mark.parametrize(
    ("line", "cause", "since"),
    [
        ("BPF_STX uses reserved fields", "atomic instructions", "Linux 5.12 or newer"),
        ("number of funcs in func_info doesn't match number of subprogs", "callback functions", "Linux 5.13 or newer"),
        ("The function bpf_lsm_path_chown arg1 type STRUCT is unsupported.", "take a struct", "Linux 6.1 or newer"),
        ("func 'kfree_skb' doesn't have 3-th argument", "kfree_skb has no argument 3", "a newer kernel"),
        ("invalid func unknown#174", "bpf_get_attach_cookie", "Linux 5.15 or newer"),
        ("invalid func unknown#9999", "helper number 9999", "a newer kernel"),
    ],
)
def test_what_an_old_kernels_verifier_does_not_know_is_reported_with_the_kernel_that_does(
    line: str, cause: str, since: str
) -> None:
    why, remedy = reason(errno.EINVAL, "-- BEGIN PROG LOAD LOG --", "func#0 @0", line, "-- END PROG LOAD LOG --")
    assert cause in why
    assert remedy == since


def test_a_missing_tracepoint_is_named() -> None:
    line = "libbpf: failed to determine tracepoint 'block/nowhere' perf event ID: No such file or directory"
    why, remedy = reason(errno.ENOENT, line)
    assert "block/nowhere" in why
    assert remedy


@pytest.mark.skipif(not os.path.isdir("/sys/kernel/tracing/events/syscalls"), reason="tracefs is not mounted")
def test_a_call_that_the_kernel_was_built_without_is_not_blamed_on_tracing_options() -> None:
    line = "libbpf: failed to determine tracepoint 'syscalls/sys_exit_nowhere' perf event ID: No such file or directory"
    why, remedy = reason(errno.ENOENT, line)
    assert why == "the kernel has no system call nowhere"
    assert "CONFIG_FTRACE_SYSCALLS" not in str(remedy)


def test_a_missing_raw_tracepoint_is_named() -> None:
    why, _ = reason(errno.ESRCH, "libbpf: prog 'x': failed to find kernel BTF type ID of 'btf_trace_nowhere': -3")
    assert why == "the kernel has no nowhere"


def test_a_map_that_is_refused_is_named() -> None:
    why, remedy = reason(errno.EINVAL, "libbpf: map 'gadget_events': failed to create: Invalid argument(-22)")
    assert "gadget_events" in why
    assert remedy == "Linux 5.11 or newer"


def test_missing_capabilities_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal, "capabilities", lambda: {"SYS_PTRACE", "BPF"})
    monkeypatch.setattr("os.geteuid", lambda: 0)
    why, remedy = reason(errno.EPERM, "libbpf: prog 'x': failed to load: -1")
    assert why == "the capabilities PERFMON are missing"
    assert "PERFMON" in str(remedy)


def test_without_root_the_remedy_is_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal, "capabilities", set)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    why, remedy = reason(errno.EPERM)
    assert why.startswith("not root")
    assert remedy == "run it as root (sudo)"


def test_lockdown_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal, "capabilities", lambda: {"SYS_ADMIN"})
    monkeypatch.setattr(refusal, "lockdown", lambda: "confidentiality")
    why, remedy = reason(errno.EPERM)
    assert "locked down" in why
    assert "lockdown=integrity" in str(remedy)


def test_a_kernel_without_btf_is_distinguished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.exists", lambda path: False)
    why, remedy = reason(errno.ESRCH, "libbpf: failed to find valid kernel BTF")
    assert "no BTF" in why
    assert "CONFIG_DEBUG_INFO_BTF" in str(remedy)


def test_unknown_messages_are_shown_unchanged() -> None:
    why, _ = reason(errno.EINVAL, "libbpf: something new went wrong")
    assert why == "Invalid argument\nsomething new went wrong"


def test_a_kernel_that_keeps_perf_for_administrators_is_distinguished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal, "perf_is_closed", lambda: True)
    line = "libbpf: tracepoint 'syscalls/sys_exit_openat' perf_event_open() failed: Permission denied"
    why, remedy = reason(errno.EACCES, line)
    assert "perf_event_paranoid" in why
    assert "SYS_ADMIN" in str(remedy)
