"""What this kernel can do for us, cheaply: HELLO is not to wait for it.

Nothing is loaded but one empty ring buffer. The trap: "could not tell" is None, not False; only loading tells for sure.
"""

import ctypes
import errno
import os
from typing import NamedTuple

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.bpf.refusal import lockdown, missing_capabilities, perf_is_closed, security_file
from kubectl_gadget.agent.host import cgroups
from kubectl_gadget.errors import AgentError
from kubectl_gadget.wire.agent_messages import Problem

_RINGBUF = 27
_LSM_LIST_MODULES = 461
"""On all architectures."""
_BPF_MODULE = 110
"""LSM_ID_BPF of include/uapi/linux/lsm.h."""
TRACING = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")


def can() -> dict[str, bool | None]:
    """Features by name: True, False, or None for "could not tell"."""
    fentry = _fentry()
    return {
        "btf": os.path.exists("/sys/kernel/btf/vmlinux"),
        "ring_buffer": _ring_buffer(),
        "tracepoint": _in_tracefs("events"),
        "syscall_tracepoint": syscall_tracepoints(),
        "kprobe": _perf_unit("kprobe"),
        "uprobe": _perf_unit("uprobe"),
        "fentry": fentry,
        # Its programs hang on trampolines as well.
        "lsm": False if fentry is False else bpf_lsm(),
    }


def syscall_tracepoints() -> bool | None:
    """Whether programs can be attached to the tracepoints of single system calls. If not, syscall_programs.py does
    without.
    """
    return False if perf_is_closed() else _in_tracefs("events/syscalls")


def problems(can: dict[str, bool | None]) -> list[Problem]:
    """What will keep gadgets from running here."""
    found = []
    if missing := missing_capabilities():
        why = f"the capabilities {', '.join(missing)} are missing"
        found.append(problem("BPF programs cannot be loaded", why, "run the agent as root, or add these capabilities"))
    try:
        libbpf.load()
    except AgentError as error:
        found.append(problem("BPF programs cannot be loaded", str(error), error.remedy))
    if can["btf"] is False:
        why = "the kernel has no BTF (/sys/kernel/btf/vmlinux)"
        found.append(problem("gadgets cannot run", why, "a kernel built with CONFIG_DEBUG_INFO_BTF=y"))
    if can["ring_buffer"] is False:
        found.append(problem("gadgets cannot run", "the kernel has no BPF ring buffer", "Linux 5.8 or newer"))
    if lockdown() == "confidentiality":
        why = "the kernel is locked down (confidentiality)"
        found.append(problem("BPF programs cannot read memory", why, "boot with lockdown=integrity"))
    return found


def problem(what: str, why: str, remedy: str | None) -> Problem:
    """One problem as in HELLO and END."""
    return Problem(what=what, why=why, try_=remedy or "")


def lacking(kind: str) -> str | None:
    """Why this kernel takes no program of the kind, such as "fentry"; None when it does, or that is not known. The
    kernel itself answers all of that with EPERM or ENOENT."""
    if kind in ("fentry", "fexit", "fmod_ret", "lsm") and _fentry() is False:
        return f"this kernel takes no {kind} programs (they need CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS)"
    if kind in ("kprobe", "kretprobe") and not _perf_unit("kprobe") and not perf_is_closed():
        return "this kernel has no kprobes (CONFIG_KPROBE_EVENTS)"
    return None


def _ring_buffer() -> bool | None:
    if missing_capabilities():
        return None
    try:
        return bool(libbpf.load().call("libbpf_probe_bpf_map_type", _RINGBUF, None))
    except AgentError:
        return None  # problems() says it
    except libbpf.Failure as failure:
        return None if failure.errno == errno.EPERM else False


def _in_tracefs(path: str) -> bool | None:
    if not any(os.path.isdir(f"{folder}/events") for folder in TRACING):
        return None
    return any(os.path.exists(f"{folder}/{path}") for folder in TRACING)


def _fentry() -> bool | None:
    """BPF trampolines hang on ftrace. A lockdown that forbids the one forbids to open the list of the other."""
    path = next((path for folder in TRACING if os.path.exists(path := f"{folder}/available_filter_functions")), None)
    if path is None:
        return _in_tracefs("available_filter_functions")
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except PermissionError:
        return False
    return True


def _perf_unit(name: str) -> bool:
    return not perf_is_closed() and os.path.exists(f"/sys/bus/event_source/devices/{name}")


def bpf_lsm() -> bool | None:
    """Whether BPF is an active security module. If not, the kernel loads and attaches its programs, and never runs
    them. None: could not tell."""
    if (modules := _active_modules()) is not None:
        return _BPF_MODULE in modules
    names = security_file("lsm").strip()
    return "bpf" in names.split(",") if names else None


def _active_modules() -> list[int] | None:
    """By lsm_list_modules(2), Linux 6.8. None: the kernel has no such call."""
    found = (ctypes.c_uint64 * 64)()
    size = ctypes.c_uint32(ctypes.sizeof(found))
    count = ctypes.CDLL(None, use_errno=True).syscall(_LSM_LIST_MODULES, found, ctypes.byref(size), 0)
    return list(found[:count]) if count >= 0 else None


class Abilities(NamedTuple):
    """These members of HELLO."""

    cgroup_root: str
    can: dict[str, bool | None]
    syscalls: str
    problems: tuple[Problem, ...]


def describe() -> Abilities:
    """What the node can do."""
    features = can()
    found = problems(features)
    root = ""
    try:
        root = cgroups.find_root()
    except AgentError as error:
        found.append(problem("containers cannot be told apart", str(error), error.remedy))
    way = "tracepoint" if features["syscall_tracepoint"] else "tp_btf"
    return Abilities(root, features, way, tuple(found))
