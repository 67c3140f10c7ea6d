"""How an agent notices that another process of the node has stopped its programs while they run.

With the node's CAP_SYS_ADMIN or CAP_BPF, a process can detach or replace the program of a cgroup's link by the link's
id, and remove programs from program arrays. With write access to /proc/sys, it can turn off everything that uses
ftrace. The trap: the kernel reports none of this, and a program that no longer runs counts no losses.
"""

import ctypes
from collections.abc import Callable, Mapping

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.host import procfs
from kubectl_gadget.wire.agent_messages import GadgetStats

_CGROUP = 3
"""BPF_LINK_TYPE_CGROUP."""
_FTRACE = "/proc/sys/kernel/ftrace_enabled"
_BY_FTRACE = ("fentry", "fexit", "fmod_ret", "lsm", "kprobe", "kretprobe")
"""The first parts of sections whose programs the kernel calls through ftrace."""
NO_FTRACE = "kernel.ftrace_enabled is 0"
REMOVED = "another process has removed it from the programs that are called"
CAUSE = "detached"
"""The name among the causes of losses in STATS."""


class LinkInfo(ctypes.Structure):
    """The head of struct bpf_link_info (include/uapi/linux/bpf.h)."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("program", ctypes.c_uint32),
        ("unused", ctypes.c_uint32),
        ("cgroup", ctypes.c_uint64),
        ("unused2", ctypes.c_uint64 * 8),
    )


def why_stopped(link: int, program: int) -> str | None:
    """Returns why the link (a file descriptor) no longer runs the program with this id. None: it still does, or the
    kernel does not say, as for perf events before Linux 5.15."""
    info = _info(link)
    if info is None:
        return None
    if info.program != program:
        return "another process has put another program in its place"
    if info.type == _CGROUP and not info.cgroup:
        return "another process has detached it"
    return None


def program_of(link: int) -> int:
    """Returns the id of the program that a link runs; 0 when the kernel does not say."""
    info = _info(link)
    return int(info.program) if info else 0


def _info(link: int) -> LinkInfo | None:
    info, size = LinkInfo(), ctypes.c_uint32(ctypes.sizeof(LinkInfo))
    failed = libbpf.load().raw("bpf_obj_get_info_by_fd", link, ctypes.byref(info), ctypes.byref(size)) < 0
    return None if failed else info


def needs_ftrace(section: str) -> bool:
    """Whether the kernel calls programs of this section through ftrace."""
    return section.partition("/")[0].partition(".")[0] in _BY_FTRACE


def why_no_ftrace() -> str | None:
    """Returns why programs that need ftrace do not run at present, whatever their links say; None when they do."""
    return NO_FTRACE if procfs.read(_FTRACE).strip() == b"0" else None


class StoppedPrograms:
    """The programs of one gadget that were found stopped. `warn` gets a text for each."""

    def __init__(self, name: str, warn: Callable[[str], None]) -> None:
        self._name = name
        self._warn = warn
        self._found: dict[str, str] = {}

    def add_to(self, stats: GadgetStats, stopped: Mapping[str, str]) -> GadgetStats:
        """Adds them to the gadget's entry in STATS. `stopped`: the reasons at this moment, by program. A program that
        was once stopped stays listed: its events have a gap, even if it runs again."""
        for program, why in stopped.items():
            if program not in self._found:
                self._warn(f"{self._name}: {program} no longer runs ({why}); what it saw is missing from now on")
        self._found |= stopped
        if not self._found:
            return stats
        return stats.replace(lost={**stats.lost, CAUSE: dict.fromkeys(self._found, 1)})
