"""A process that a tracer stops and whose registers it changes: ptrace() on x86-64.

    with Stopped(deed, TRACE_CLONE) as child:    # `deed` runs until the first event
        child.rewrite(ORIG_RAX, GETPPID)
    child.pid                                    # it was let go, and has ended

PTRACE_O_TRACECLONE is about children whose end another signal than SIGCHLD reports, and such a child is stopped, too.
"""

import ctypes
import os
import signal
from collections.abc import Callable
from types import TracebackType

import pytest

from tests.bpf import deeds

PTRACE, GETPPID = 101, 110
TRACEME, POKE, CONT, DETACH, SYSCALL, SETOPTIONS, GETEVENTMSG, POKEDATA = 0, 6, 7, 17, 24, 0x4200, 0x4201, 5
TRACE_SYSCALLS, TRACE_CLONE = 1, 8
"""PTRACE_O_…; each with the stop that it asks for."""
RDI, RSI, RDX, ORIG_RAX = 14 * 8, 13 * 8, 12 * 8, 15 * 8
"""Where registers lie in struct user_regs_struct."""

needs_x86 = pytest.mark.skipif(not deeds.X86, reason="the registers are those of x86-64")


class Stopped:
    """A child, stopped where `options` say."""

    def __init__(self, deed: Callable[[], object], options: int) -> None:
        self.pid = os.fork()
        if not self.pid:
            _run(deed)
        assert self.wait() == signal.SIGSTOP
        self._ask(SETOPTIONS, 0, options)
        self._is_event = bool(options & TRACE_CLONE)
        self.go_on(CONT if self._is_event else SYSCALL)

    def __enter__(self) -> "Stopped":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error:
            os.kill(self.pid, signal.SIGKILL)
        else:
            if self._is_event:
                self._release_child()
            self._ask(DETACH, 0, 0)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        assert error or status == 0

    def wait(self) -> int:
        """Until it stops. The signal that it stopped for."""
        _, status = os.waitpid(self.pid, 0x40000000)  # __WALL
        assert os.WIFSTOPPED(status), status
        return os.WSTOPSIG(status)

    def go_on(self, how: int = SYSCALL) -> None:
        """To the next stop."""
        self._ask(how, 0, 0)
        self.wait()

    def rewrite(self, register: int, value: int) -> None:
        """Another value for a register."""
        self._ask(POKE, register, value)

    def rewrite_memory(self, address: int, value: int) -> None:
        """Another word in its memory."""
        self._ask(POKEDATA, address, value)

    def _release_child(self) -> None:
        message = ctypes.c_ulong()
        assert deeds.syscall(PTRACE, GETEVENTMSG, self.pid, None, ctypes.addressof(message)) == 0
        _, status = os.waitpid(message.value, 0x40000000)
        assert os.WIFSTOPPED(status), status
        assert deeds.syscall(PTRACE, DETACH, message.value, None, None) == 0

    def _ask(self, request: int, address: int, data: int) -> None:
        result = deeds.syscall(PTRACE, request, self.pid, address, data)
        assert result == 0, (request, result)


def _run(deed: Callable[[], object]) -> None:
    try:
        assert deeds.syscall(PTRACE, TRACEME, 0, 0, 0) == 0
        os.kill(os.getpid(), signal.SIGSTOP)
        deed()
    except BaseException:
        os._exit(1)
    os._exit(0)
