"""COMMAND: a child process that exists, with its pid, before anything is attached, and starts afterwards.

It has our terminal, process group and standard streams. The trap: the child is forked before there are threads and an
event loop, and until it may start it only waits for one byte; if we die, it ends without having run anything.
"""

import asyncio
import ctypes
import errno
import os
import pwd
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.python_process import given_environment
from kubectl_gadget.run.services import heeded

_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
"""Exit codes as in a shell."""
_FROM_KEYBOARD = (signal.SIGINT, signal.SIGQUIT)


@dataclass(frozen=True)
class User:
    """Another user that COMMAND runs as."""

    name: str
    uid: int
    gid: int
    home: str


def user(name: str, source: str = "--run-as") -> User:
    """The user with this name, which `source` has. Raises UsageError."""
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise UsageError(f"{source} {name}: this machine has no such user") from None
    if os.geteuid() not in (0, found.pw_uid):
        raise UsageError(f"{source} {name}: only root can run a command as another user", "sudo")
    return User(name, found.pw_uid, found.pw_gid, found.pw_dir)


def require(program: str) -> None:
    """Raises GadgetError, with a shell's exit code, if neither PATH nor the file system has this program."""
    folders = [""] if "/" in program else os.get_exec_path(given_environment())
    if not any(os.path.lexists(os.path.join(folder, program)) for folder in folders):
        error = GadgetError(f"{program}: {os.strerror(errno.ENOENT)}; nothing was traced")
        error.exit_code = _NOT_FOUND
        raise error


@contextmanager
def writing_as(chosen: User | None) -> Iterator[None]:
    """Files of the block are written with the rights of this user: root must not follow a link that COMMAND has put in
    the place of a report."""
    if chosen is None or os.geteuid() != 0:
        yield
        return
    group, groups = os.getegid(), os.getgroups()
    os.setgroups(os.getgrouplist(chosen.name, chosen.gid))
    os.setegid(chosen.gid)
    os.seteuid(chosen.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


class Command:
    """The child process. `start` and `wait` are called once each, or `abandon`."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], run_as: User | None = None) -> None:
        """Forks it. `environment` is added to the user's."""
        self.words, self.user = tuple(words), run_as
        self.started = self.ended = False
        self.problem = ""
        """why it could not be started; known after `start`"""
        gate, self._gate = os.pipe()
        self._failure, failure = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            os.close(self._gate)
            os.close(self._failure)
            _become(gate, failure, self.words, {**given_environment(), **environment}, run_as)
        os.close(gate)
        os.close(failure)

    def start(self) -> None:
        """Lets it run. `problem` is set if it cannot be executed."""
        self.started = True
        os.write(self._gate, b"x")
        os.close(self._gate)
        # End-of-file once it runs the program, since the pipe is closed then.
        number = os.read(self._failure, 16)
        os.close(self._failure)
        if number:
            self.problem = f"{self.words[0]}: {os.strerror(int(number))}"

    def abandon(self) -> None:
        """Ends the child before it has run anything."""
        if not self.started:
            os.close(self._gate)
            os.close(self._failure)
            os.waitpid(self.pid, 0)

    async def wait(self) -> int:
        """Its exit code, as a shell has it: 128 and more for a signal."""
        await asyncio.to_thread(os.waitid, os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        return self._reap()

    def _reap(self) -> int:
        # Not in the thread: until `ended` is true, no other process can have its number.
        _, status = os.waitpid(self.pid, 0)
        self.ended = True
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def forward(self, number: int) -> None:
        """Passes a signal on, unless the terminal has sent it to the whole process group anyway."""
        if self.ended or (number in _FROM_KEYBOARD and _in_foreground()):
            return
        os.kill(self.pid, number)


def _in_foreground() -> bool:
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _become(gate: int, failure: int, words: Sequence[str], environment: dict[str, str], run_as: User | None) -> None:
    """In the child: waits, and becomes the command. Never returns."""
    code = _NOT_EXECUTABLE
    try:
        for number in (*heeded("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"), signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)  # Python ignores the last two
        if os.read(gate, 1) != b"x":
            os._exit(0)
        if run_as is not None and run_as.uid != os.geteuid():
            os.setgroups(os.getgrouplist(run_as.name, run_as.gid))
            os.setgid(run_as.gid)
            os.setuid(run_as.uid)
            environment |= {"HOME": run_as.home, "USER": run_as.name, "LOGNAME": run_as.name}
        os.execvpe(words[0], list(words), environment)
    except OSError as error:
        code = _NOT_FOUND if error.errno == errno.ENOENT else _NOT_EXECUTABLE
        os.write(failure, str(error.errno).encode())
    finally:
        os._exit(code)


# Processes that COMMAND started and that outlive it: they become children of ours, so that they can be counted.

_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.05
_REAP_SECONDS = 1.0
_ZOMBIE = "Z"


class LeftRunning:
    """Orphans of COMMAND. Made before COMMAND starts; all children that we have then are not its.

    A process that forks and ends again and again is never seen twice. But each of its parents stays a zombie in /proc
    until it is reaped here, so a look that finds no child of ours proves that none is left.
    """

    def __init__(self) -> None:
        self._ours = {pid for pid, _ in _children(_processes())}
        """COMMAND itself, and the agent"""
        _become_reaper(True)

    def close(self) -> None:
        """Orphans go to init again."""
        _become_reaper(False)

    async def reap(self) -> None:
        """Until it is cancelled: a long build must not fill the table of processes with zombies."""
        while True:
            await asyncio.sleep(_REAP_SECONDS)
            self._look()

    async def wait(self, seconds: float) -> int:
        """Return the number that still run after this time, or 0 as soon as none does."""
        deadline = time.monotonic() + seconds
        while True:
            number = self._look()
            if not number or time.monotonic() >= deadline:
                return number
            await asyncio.sleep(_POLL_SECONDS)

    def _look(self) -> int:
        """The number of processes that were found, also those that have just ended."""
        found = _processes()
        orphans = [(pid, state) for pid, state in _children(found) if pid not in self._ours]
        for pid, state in orphans:
            if state == _ZOMBIE:
                os.waitpid(pid, os.WNOHANG)
        below, number = [pid for pid, _ in orphans], 0
        while below:
            number += len(below)
            parents = set(below)
            below = [pid for pid, (parent, state) in found.items() if parent in parents and state != _ZOMBIE]
        return number


def _children(processes: Mapping[int, tuple[int, str]]) -> Iterator[tuple[int, str]]:
    ours = os.getpid()
    return ((pid, state) for pid, (parent, state) in processes.items() if parent == ours)


def _processes() -> dict[int, tuple[int, str]]:
    """The parent and the state of each process of this machine."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    # The name of a program is in brackets, and may have spaces and brackets itself.
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
            except (FileNotFoundError, ProcessLookupError):
                continue
            found[int(name)] = int(parent), state.decode()
    return found


def _become_reaper(wanted: bool) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_CHILD_SUBREAPER, ctypes.c_ulong(wanted), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
