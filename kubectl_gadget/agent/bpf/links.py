"""The links that keep programs attached, how to detach many of them quickly, and how an agent notices that another
process has stopped its programs.

The kernel takes some 70 ms to free the perf event of a tracepoint or kprobe, one after the other, and a gadget may have
thirty. But a program is no longer started when the link to its event is closed. So all links are closed together, and
the events are freed later: by Links.free(), or by a child process when this one ends. The trap: a program may still be
running on another CPU, so callers must wait before they read its maps (`wait_for_programs`).
"""

import contextlib
import ctypes
import errno
import os
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.host import procfs
from kubectl_gadget.errors import AgentError
from kubectl_gadget.wire.agent_messages import GadgetStats

_MEMBARRIER = {"x86_64": 324, "aarch64": 283}
_GLOBAL = 1
"""MEMBARRIER_CMD_GLOBAL. It waits for an RCU grace period, as everything that frees programs does."""
_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG. The signal is sent after the parent's files have been closed."""
_THREADS = 64
_LONGEST_PROGRAM = 0.1
"""Seconds to wait where membarrier is refused (nohz_full). A program takes microseconds, unless preempted."""


_unfreed = 0
"""Perf events of this process whose programs are detached, but which are not freed yet."""


class Links:
    """libbpf's links that were released."""

    def __init__(self) -> None:
        self._lib = libbpf.load()
        self._closed: list[int] = []

    def release(self, links: Iterable[int]) -> bool:
        """Detaches their programs. Returns True when some may still be running: call wait_for_programs() then."""
        events: list[int] = []
        for link in links:
            fd = int(self._lib.raw("bpf_link__fd", link))
            if _is_perf(fd):
                events.append(fd)
                self._closed.append(link)
            else:
                self._lib.raw("bpf_link__destroy", link)
        _count(len(events))
        _close_together(events)
        return bool(events)

    def free(self) -> None:
        """Frees what was released. This may take long."""
        while self._closed:
            self._lib.raw("bpf_link__destroy", self._closed.pop())
            _count(-1)


def leave_to_child(streams: Iterable[int]) -> bool:
    """Forks a child that frees the perf events, so that nothing waits for them. Call it when this process is about to
    end. The child closes `streams`, because readers wait for their end. Returns False when there are no events to
    free."""
    if not _unfreed:
        return False
    parent = os.getpid()
    if os.fork():
        return True
    for fd in (0, 1, 2, *streams):
        with contextlib.suppress(OSError):
            os.close(fd)
    # The process that closes the events last frees them, so the child waits until the parent has closed its own.
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
    while os.getppid() == parent:
        signal.pause()
    os._exit(0)


def _close_together(fds: Sequence[int]) -> None:
    """Closes them in parallel threads: since Linux 6.13 each close waits for a grace period, and all can wait for the
    same one. libbpf closes the same descriptors again later, so /dev/null takes their place until then."""
    if not fds:
        return
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    for start in range(0, len(fds), _THREADS):
        threads = [threading.Thread(target=os.dup2, args=(null, fd, False)) for fd in fds[start : start + _THREADS]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    os.close(null)


def _count(more: int) -> None:
    global _unfreed
    _unfreed += more


def wait_for_programs() -> None:
    """Waits until all programs that are running now have ended."""
    library = ctypes.CDLL(None, use_errno=True)
    number = _MEMBARRIER.get(os.uname().machine)
    if number is None or library.syscall(ctypes.c_long(number), _GLOBAL, 0, 0) < 0:
        time.sleep(_LONGEST_PROGRAM)


def _is_perf(fd: int) -> bool:
    """True if a link connects a program to a perf event. Before Linux 5.15 it is not a link but the event itself."""
    try:
        with open(f"/proc/self/fdinfo/{fd}") as file:
            return "link_type:\tperf\n" in file.read()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EBADF):
            return False
        raise


# Programs that another process of the node stops while they run.
#
# With the node's CAP_SYS_ADMIN or CAP_BPF, a process can detach or replace the program of a cgroup's link by the
# link's id, and remove programs from program arrays. With write access to /proc/sys, it can turn off everything that
# uses ftrace. The kernel reports none of this, and a program that no longer runs counts no losses.

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
    """True if the kernel calls programs of this section through ftrace."""
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
        was stopped at any time stays listed: its events have a gap, even if it runs again."""
        for program, why in stopped.items():
            if program not in self._found:
                self._warn(f"{self._name}: {program} no longer runs ({why}); its events are missing")
        self._found |= stopped
        if not self._found:
            return stats
        return stats.replace(lost={**stats.lost, CAUSE: dict.fromkeys(self._found, 1)})


# Perf events on each CPU: those that run a program at a fixed frequency, by a kernel timer and not a hardware
# counter; and those that make the kernel report mappings.
#
# CPUs that come online later have none.

_NUMBER = {"x86_64": 298, "aarch64": 241}
"""System call number of perf_event_open()."""
_SOFTWARE, _CPU_CLOCK, _DUMMY = 1, 0, 9
_FREQUENCY = 1 << 10
"""attr.freq: sample_period is a frequency"""
_MMAP, _MMAP2, _BUILD_ID = 1 << 8, 1 << 23, 1 << 34
_CLOSE_ON_EXEC = 8
_ATTRIBUTES = struct.Struct("<IIQQQQQ")
"""The head of struct perf_event_attr: type, size, config, sample_freq, sample_type, read_format, flags."""
_SIZE = 128


def sample(program: int, frequency: int) -> list[int]:
    """Attaches the program to every online CPU and returns libbpf's links, one per CPU. Raises Failure."""
    lib = libbpf.load()
    links: list[int] = []
    try:
        for cpu in online():
            event = open_event(cpu, _CPU_CLOCK, frequency, _FREQUENCY)
            try:
                links.append(lib.call("bpf_program__attach_perf_event", program, event))
            except Failure:
                os.close(event)
                raise
    except Failure:
        for link in links:
            lib.raw("bpf_link__destroy", link)
        raise
    return links


def online(path: str = "/sys/devices/system/cpu/online") -> list[int]:
    """Returns the numbers of the online CPUs."""
    with open(path) as file:
        ranges = [part.partition("-") for part in file.read().strip().split(",")]
    return [cpu for first, _, last in ranges for cpu in range(int(first), int(last or first) + 1)]


def open_event(cpu: int, event: int, period: int, flags: int) -> int:
    """Opens a software event on one CPU; `flags` are bits of its attributes. Returns its fd. Raises Failure."""
    attributes = ctypes.create_string_buffer(_ATTRIBUTES.pack(_SOFTWARE, _SIZE, event, period, 0, 0, flags), _SIZE)
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    number = ctypes.c_long(_NUMBER[os.uname().machine])
    fd: int = library.syscall(number, attributes, -1, cpu, -1, ctypes.c_ulong(_CLOSE_ON_EXEC))
    if fd < 0:
        error = ctypes.get_errno()
        raise Failure("perf_event_open", error, [f"perf_event_open() failed: {os.strerror(error)}"])
    return fd


class MappingEvents:
    """Makes the kernel report executable mappings with their build ids, from its creation until close(): dummy events,
    which nothing reads; a BPF program at the kernel function that writes them reads its arguments. Raises
    AgentError."""

    def __init__(self) -> None:
        self._fds: list[int] = []
        try:
            for cpu in online():
                self._fds.append(open_event(cpu, _DUMMY, 0, _MMAP | _MMAP2 | _BUILD_ID))
        except Failure as failure:
            self.close()
            what = f"the kernel does not report mappings with their build ids: {failure}"
            raise AgentError(what, "Linux 5.12 or newer, with kernel.perf_event_paranoid=2 or --privileged") from None

    def close(self) -> None:
        """Ends the reports. May be called twice."""
        while self._fds:
            os.close(self._fds.pop())
