"""The links that keep programs attached, and how to detach many of them quickly.

The kernel takes some 70 ms to free the perf event of a tracepoint or kprobe, one after the other, and a gadget may have
thirty. But a program is no longer started once the link to its event is closed. So all links are closed at once, and
the events are freed later, when nothing waits for that. The trap: a program may still be running on another CPU, so
callers must wait once before they read its maps (`wait_for_programs`).
"""

import contextlib
import ctypes
import errno
import os
import signal
import threading
import time
from collections.abc import Iterable, Sequence

from kubectl_gadget.agent.bpf import libbpf

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
    """Whether a link connects a program to a perf event. Before Linux 5.15 it is not a link but the event itself."""
    try:
        with open(f"/proc/self/fdinfo/{fd}") as file:
            return "link_type:\tperf\n" in file.read()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EBADF):
            return False
        raise
