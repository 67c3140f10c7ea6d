"""Explains why this kernel refused a program or a map: turns libbpf's errno and log into an AgentError with cause and
remedy.

The verifier's log is long and its end has the reason, so only the last useful lines are shown. EPERM has four causes
(capabilities, lockdown, memory limit, seccomp) that the kernel does not distinguish, so each is checked.
"""

import errno
import os
import re
from contextlib import suppress

from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.host import procfs
from kubectl_gadget.agent.host.this_node import tracefs
from kubectl_gadget.errors import AgentError

CAPABILITIES = {"NET_ADMIN": 12, "SYS_PTRACE": 19, "SYS_ADMIN": 21, "PERFMON": 38, "BPF": 39}
"""Bits in CapEff."""
SECURITYFS = ("/sys/kernel/security", "/proc/1/root/sys/kernel/security")
"""The mount points of securityfs here, and on the node."""

PERF_IS_CLOSED = (
    "kernel.perf_event_paranoid is above 2, so Debian's and Ubuntu's kernels reserve perf events for CAP_SYS_ADMIN",
    "give the agent the capability SYS_ADMIN, or set the node's sysctl kernel.perf_event_paranoid=2",
)
"""Cause and remedy."""

_USEFUL_LINES = 6
_NEWER_HELPERS = {
    "bpf_ringbuf_output": "5.8",
    "bpf_ringbuf_reserve": "5.8",
    "bpf_ringbuf_query": "5.8",
    "bpf_get_current_ancestor_cgroup_id": "5.8",
    "bpf_ktime_get_boot_ns": "5.8",
    "bpf_d_path": "5.10",
    "bpf_get_current_task_btf": "5.11",
    "bpf_get_attach_cookie": "5.15",
    "bpf_task_pt_regs": "5.15",
    "bpf_loop": "5.17",
}
_NUMBERED_HELPERS = {"174": "bpf_get_attach_cookie", "175": "bpf_task_pt_regs", "181": "bpf_loop"}
"""Names of helpers that an older kernel reports only by number (include/uapi/linux/bpf.h)."""
# Patterns are compiled when something was refused: every session imports this.
_UNKNOWN_HELPER = r"(?:unknown func|invalid func|program of this type cannot use helper) ([a-z0-9_#]+)"
_NO_ATOMICS = "BPF_STX uses reserved fields"
_LIMITS = (
    # Since 981f94c3e921 "bpf: Add bitwise atomic instructions" and the commits before it.
    (_NO_ATOMICS, "the kernel's BPF has no atomic instructions except addition", "5.12"),
    # Since 69c087ba6225 "bpf: Add bpf_for_each_map_elem() helper".
    ("doesn't match number of subprogs", "the kernel's BPF has no callback functions", "5.13"),
    # Since 720e6a435194 "bpf: Allow struct argument in trampoline based programs".
    ("type STRUCT is unsupported", "the kernel allows no BPF program on functions that take a struct", "6.1"),
)
"""The verifier's message, what it means, and the first kernel that supports the feature."""
_FEWER_ARGUMENTS = r"func '(\w+)' doesn't have (\d+)-th argument"
_FAILED_PROGRAM = r"prog '([^']+)': (?:failed to load|BPF program load failed|failed to find|failed to)"
_TRACEPOINT = r"failed to determine tracepoint '([^']+)' perf event ID: (.*)"
_BTF_TYPE = r"failed to find kernel BTF type ID of '([^']+)'"
_OTHER_CONTEXT = "func 'sys_exit' doesn't have"
"""The verifier's message about a program that was not written for raw tracepoints."""
_NO_CALL = r"failed to find the system call '([^']+)'"
_MAP = r"map '([^']+)': failed to create"
_USELESS = r"^(processed \d+ insns|verification time|stack depth|-- (BEGIN|END) PROG|\d+: (safe|\(.*\) goto|R\d.*=))"


def capabilities() -> set[str]:
    """Returns which of CAPABILITIES this process has in effect."""
    with open("/proc/self/status") as status:
        mask = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    return {name for name, bit in CAPABILITIES.items() if mask >> bit & 1}


def missing_capabilities() -> list[str]:
    """Returns the capabilities that tracing programs need and this process lacks."""
    have = capabilities()
    return [] if "SYS_ADMIN" in have else sorted({"BPF", "PERFMON"} - have)


def security_file(name: str) -> str:
    """Returns the content of a securityfs file, or "" when it cannot be read. In a pod the node's mount is used."""
    for folder in SECURITYFS:
        with suppress(OSError), open(f"{folder}/{name}") as file:
            return file.read()
    return ""


def lockdown() -> str:
    """Returns the kernel's lockdown mode: "none", "integrity", "confidentiality", or "" when it cannot be read."""
    found = re.search(r"\[(\w+)\]", security_file("lockdown"))
    return found[1] if found else ""


def perf_is_closed() -> bool:
    """True if the kernel refuses perf_event_open(), which attaches programs to tracepoints, kprobes and uprobes, in
    spite of CAP_PERFMON. Debian's and Ubuntu's kernels do by default, at levels of kernel.perf_event_paranoid from 3
    up, which other kernels do not have."""
    level = procfs.read("/proc/sys/kernel/perf_event_paranoid").strip()
    return level.isdigit() and int(level) > 2 and "SYS_ADMIN" not in capabilities()


def failed_program(log: list[str]) -> str | None:
    """Returns the program that libbpf reports as failed."""
    found = [match[1] for line in log if (match := re.search(_FAILED_PROGRAM, line))]
    return found[0] if found else None


def lacks_atomics(failure: Failure) -> bool:
    """True if the kernel refused an atomic instruction that is not an addition."""
    return any(_NO_ATOMICS in line for line in failure.log)


def reason(failure: Failure) -> tuple[str, str | None]:
    """Returns the reason in one or more lines, and a remedy if there is one."""
    text = "\n".join(failure.log)
    if "perf_event_open() failed" in text and perf_is_closed():
        return PERF_IS_CLOSED
    if failure.call == "bpf_program__attach_cgroup" and "NET_ADMIN" not in capabilities():
        return (
            "the capability NET_ADMIN is missing",
            "add it to the agent's container, or make the container privileged",
        )
    if failure.errno in (errno.EPERM, errno.EACCES) and "PROG LOAD LOG" not in text:
        return _not_permitted()
    if "kernel BTF" in text and "valid" in text and not os.path.exists("/sys/kernel/btf/vmlinux"):
        return "the kernel has no BTF (/sys/kernel/btf/vmlinux)", "a kernel built with CONFIG_DEBUG_INFO_BTF=y"
    if found := re.search(_TRACEPOINT, text):
        return _no_tracepoint(found[1], found[2])
    if found := re.search(_BTF_TYPE, text):
        what = found[1].removeprefix("btf_trace_")
        return (
            f"the kernel has no {what}",
            "a newer kernel, or one with more tracing options (CONFIG_FTRACE_SYSCALLS, …)",
        )
    if found := re.search(_UNKNOWN_HELPER, text):
        helper, _, number = found[1].partition("#")
        if helper == "unknown":
            helper = _NUMBERED_HELPERS.get(number, f"number {number}")
        since = _NEWER_HELPERS.get(helper)
        return f"the kernel has no helper {helper}", f"Linux {since} or newer" if since else "a newer kernel"
    if _OTHER_CONTEXT in text:
        why = "it reads the context of a tracepoint, but system calls are traced without tracepoints"
        return why, "gadget_result(ctx) of gadget/syscall.h"
    for message, why, since in _LIMITS:
        if message in text:
            return why, f"Linux {since} or newer"
    if found := re.search(_FEWER_ARGUMENTS, text):
        return f"the kernel's {found[1]} has no argument {found[2]}", "a newer kernel"
    if found := re.search(_NO_CALL, text):
        return f"this architecture has no system call {found[1]}", None
    if found := re.search(_MAP, text):
        return f"the kernel refused the map {found[1]}: {os.strerror(failure.errno)}", "Linux 5.11 or newer"
    return "\n".join([os.strerror(failure.errno), *useful_lines(failure.log)]), None


def useful_lines(log: list[str]) -> list[str]:
    """Returns the last lines of the verifier's log, or of libbpf's messages, that explain the failure."""
    begin_lines = [i for i, line in enumerate(log) if "BEGIN PROG LOAD LOG" in line]
    end_lines = [i for i, line in enumerate(log) if "END PROG LOAD LOG" in line]
    if begin_lines and end_lines:
        log = log[begin_lines[-1] + 1 : end_lines[-1]]
    return [line.removeprefix("libbpf: ") for line in log if line.strip() and not re.match(_USELESS, line)][
        -_USEFUL_LINES:
    ]


def refused(what: str, failure: Failure, lacking: str | None = None) -> AgentError:
    """Returns the error to raise. `what` is, for example, "gadget trace_open". `lacking`: the reason, if known."""
    why, remedy = (lacking, None) if lacking else reason(failure)
    return AgentError(f"{what} cannot run here: {why}", remedy)


def _not_permitted() -> tuple[str, str | None]:
    missing = missing_capabilities()
    if missing:
        if os.geteuid():
            return f"not root, and without the capabilities {', '.join(missing)}", "run it as root (sudo)"
        remedy = f"give the agent's container the capabilities {', '.join(missing)}, or make it privileged"
        return f"the capabilities {', '.join(missing)} are missing", remedy
    if lockdown() == "confidentiality":
        return "the kernel is locked down (confidentiality)", "boot with lockdown=integrity, or without Secure Boot"
    remedy = "check the seccomp profile, LSM and memory lock limit (ulimit -l) of the agent's container"
    return "the kernel does not permit it, although the agent has the capabilities", remedy


def _no_tracepoint(name: str, error: str) -> tuple[str, str | None]:
    if (folder := tracefs()) is None:
        remedy = "mount -t tracefs tracefs /sys/kernel/tracing (in a pod: as a hostPath)"
        return f"tracepoint {name} cannot be looked up ({error}): tracefs is not mounted", remedy
    group, _, call = name.partition("/sys_exit_" if "/sys_exit_" in name else "/sys_enter_")
    if call and os.path.isdir(f"{folder}/events/{group}"):
        return f"the kernel has no system call {call}", "a newer kernel, or one that is built with this call"
    return f"the kernel has no tracepoint {name}", "a kernel with CONFIG_FTRACE_SYSCALLS=y, or a newer one"
