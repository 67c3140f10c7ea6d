"""Detects what this kernel supports. The checks are cheap, because HELLO must not wait for them.

Nothing is loaded except one empty ring buffer. None means "unknown", not False; only loading a program gives certainty.
"""

import ctypes
import errno
import os
from typing import Any

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.host import cgroups
from kubectl_gadget.agent.host.this_node import tracefs
from kubectl_gadget.agent.kernel.refusal import lockdown, missing_capabilities, perf_is_closed, security_file
from kubectl_gadget.errors import AgentError
from kubectl_gadget.wire.agent_messages import Problem

_RINGBUF = 27
_LSM_LIST_MODULES = 461
"""The same on all architectures."""
_BPF_MODULE = 110
"""LSM_ID_BPF of include/uapi/linux/lsm.h."""


def can() -> dict[str, bool | None]:
    """Returns features by name: True, False, or None for "unknown"."""
    fentry = _fentry()
    return {
        "btf": os.path.exists("/sys/kernel/btf/vmlinux"),
        "ring_buffer": _ring_buffer(),
        "tracepoint": tracefs() is not None or None,
        "kprobe": _perf_unit("kprobe"),
        "uprobe": _perf_unit("uprobe"),
        "fentry": fentry,
        # LSM programs also use trampolines.
        "lsm": False if fentry is False else bpf_lsm(),
    }


def problems(can: dict[str, bool | None]) -> list[Problem]:
    """Returns the problems that keep gadgets from running here."""
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
    """Returns one problem for HELLO and END."""
    return Problem(what=what, why=why, try_=remedy or "")


def lacking(kind: str) -> str | None:
    """Returns why this kernel accepts no programs of the kind, such as "fentry"; None when it accepts them, or when
    that is unknown. The kernel's own answer is only EPERM or ENOENT."""
    if kind in ("fentry", "fexit", "fmod_ret", "lsm") and _fentry() is False:
        return f"this kernel has no {kind} programs (they need CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS)"
    if kind in ("kprobe", "kretprobe") and not _perf_unit("kprobe") and not perf_is_closed():
        return "this kernel has no kprobes (CONFIG_KPROBE_EVENTS)"
    return None


def _ring_buffer() -> bool | None:
    if missing_capabilities():
        return None
    try:
        return bool(libbpf.load().call("libbpf_probe_bpf_map_type", _RINGBUF, None))
    except AgentError:
        return None  # problems() reports it
    except libbpf.Failure as failure:
        return None if failure.errno == errno.EPERM else False


def _fentry() -> bool | None:
    """True if BPF trampolines, which need ftrace, work. A lockdown that forbids them also forbids opening ftrace's list
    of functions."""
    if (folder := tracefs()) is None:
        return None
    try:
        os.close(os.open(f"{folder}/available_filter_functions", os.O_RDONLY | os.O_CLOEXEC))
    except (FileNotFoundError, PermissionError):
        return False
    return True


def _perf_unit(name: str) -> bool:
    return not perf_is_closed() and os.path.exists(f"/sys/bus/event_source/devices/{name}")


def bpf_lsm() -> bool | None:
    """True if BPF is an active security module; None if that is unknown. If it is not, the kernel loads and attaches
    LSM programs but never runs them."""
    if (modules := _active_modules()) is not None:
        return _BPF_MODULE in modules
    names = security_file("lsm").strip()
    return "bpf" in names.split(",") if names else None


def _active_modules() -> list[int] | None:
    """Calls lsm_list_modules(2), Linux 6.8. Returns None when the kernel does not have it."""
    found = (ctypes.c_uint64 * 64)()
    size = ctypes.c_uint32(ctypes.sizeof(found))
    count = ctypes.CDLL(None, use_errno=True).syscall(_LSM_LIST_MODULES, found, ctypes.byref(size), 0)
    return list(found[:count]) if count >= 0 else None


def describe() -> dict[str, Any]:
    """Returns the members of HELLO that say what the node supports."""
    features = can()
    found = problems(features)
    root = ""
    try:
        root = cgroups.find_root()
    except AgentError as error:
        found.append(problem("containers cannot be distinguished", str(error), error.remedy))
    return {"cgroup_root": root, "can": features, "problems": tuple(found)}
