"""A CI run in a process of its own, between `ci start` and `ci stop`, for pipelines whose steps are separate processes.

The folder of the state has the socket, the log, the lock that the process holds while it lives, and the result. The
process may be killed at any time, so the result is written at the start already, as inconclusive; whoever finds the
lock free reads it.
"""

import fcntl
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn, TextIO

from kubectl_gadget.ci import steps
from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.reports import machine
from kubectl_gadget.reports.model import RunReport

DEFAULT_FOLDER = ".kubectl-gadget-ci"
_LOCK, _LOG, _RESULT = "lock", "log", "result.json"
_STOP_SECONDS = 60.0
_POLL_SECONDS = 0.05
_ATTACHED = b"attached\n"

Started = Callable[[], object]
Run = Callable[[TextIO, Path, Started], RunReport]
"""Runs, with the log, the folder for the socket, and a function to be called when everything is attached. Raises
GadgetError."""


class _State:
    """The folder, opened once: whoever owns the folder above may put another in its place at any time."""

    def __init__(self, folder: Path) -> None:
        """Raises UsageError for a folder that others can write: a step might have put its own result there."""
        self.folder = folder
        try:
            self.fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(f"{folder}: {error.strerror}", "--state FOLDER") from None
        found = os.fstat(self.fd)
        if found.st_uid != os.geteuid():
            self.close()
            raise UsageError(f"{folder} belongs to another user", "--state FOLDER")
        if found.st_mode & 0o022:
            self.close()
            raise UsageError(f"{folder} can be written by other users", f"chmod go-w {folder}, or --state FOLDER")

    def close(self) -> None:
        os.close(self.fd)

    @property
    def path(self) -> Path:
        """The same folder, whatever its name is by now."""
        own = Path(f"/proc/self/fd/{self.fd}")
        return own if own.exists() else self.folder

    def has(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def new(self, name: str) -> TextIO:
        """Creates a file, and removes an old one of the same name first."""
        self.remove(name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.fdopen(os.open(name, flags, 0o644, dir_fd=self.fd), "w", encoding="utf-8")

    def read(self, name: str) -> str:
        with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd), "rb") as file:
            return file.read().decode()

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.fd)

    def keep(self, report: RunReport) -> None:
        """Writes the result, atomically."""
        new = f"{_RESULT}.new"
        with self.new(new) as file:
            file.write(machine.render_json(report))
        os.replace(new, _RESULT, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """True if no other process holds the lock; then this one holds it during the block."""
        # Others may not even read it: whoever can open it can hold the lock.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(_LOCK, flags, 0o600, dir_fd=self.fd)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield True
        except BlockingIOError:
            yield False
        finally:
            os.close(descriptor)


def start(folder: Path, run: Run, first: RunReport) -> None:
    """Starts the process and returns when everything is attached. `first` is the result until there is another.

    Raises GadgetError with the reason when it could not be attached.
    """
    with closing(_prepared(folder)) as state:
        said, say = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if not pid:
            os.close(said)
            _live(state, run, first, say)
        os.close(say)
    with os.fdopen(said, "rb") as stream:
        heard = stream.read()
    if heard != _ATTACHED:
        os.waitpid(pid, 0)
        code, text, remedy = (*heard.decode("utf-8", "replace").split("\0"), "", "")[:3]
        error = GadgetError(text or f"it ended immediately; its log is {folder / _LOG}", remedy or None)
        error.exit_code = int(code or 1)
        raise error


def _prepared(folder: Path) -> _State:
    try:
        folder.mkdir(mode=0o755, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: {error.strerror}", "--state FOLDER") from None
    state = _State(folder)
    with ExitStack() as failed:
        failed.callback(state.close)
        with state.locked() as free:
            if not free:
                raise UsageError(f"a run is in progress in {folder}", "kubectl gadget ci stop, or --state FOLDER")
            state.remove(_RESULT)
        failed.pop_all()
    return state


def _live(state: _State, run: Run, first: RunReport, say: int) -> NoReturn:
    """The process. Never returns."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with state.locked() as free, state.new(_LOG) as log:
            if not free:
                os.write(say, b"1\0another run has just begun there")
                os._exit(1)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for descriptor in (1, 2):
                os.dup2(log.fileno(), descriptor)
            try:
                code = _run(state, run, first, say, log)
            except BaseException:
                os.write(log.fileno(), traceback.format_exc().encode("utf-8", "replace"))
    except OSError as error:
        os.write(say, f"1\0{state.folder}: {error.strerror}".encode("utf-8", "replace"))
    finally:
        os._exit(code)


def _run(state: _State, run: Run, first: RunReport, say: int, log: TextIO) -> int:
    def attached() -> None:
        state.keep(first)
        os.write(say, _ATTACHED)
        os.close(say)

    try:
        state.keep(run(log, state.path, attached))
    except GadgetError as error:
        if state.has(_RESULT):
            log.write(f"error: {error}\n")
        else:
            os.write(say, f"{error.exit_code}\0{error}\0{error.remedy or ''}".encode())
        return error.exit_code
    return 0


def stop(folder: Path) -> RunReport:
    """Ends the run of `ci start`, and returns its report, also when the run has died. Raises GadgetError when there is
    none."""
    if not (folder / _LOCK).exists():
        raise UsageError(f"no run was started in {folder}", "kubectl gadget ci start, or --state FOLDER")
    with closing(_State(folder)) as state:
        return _stopped(state)


def _stopped(state: _State) -> RunReport:
    folder = state.folder
    # A step can send the same request. Whoever ended the run, what came after that was not seen.
    try:
        is_early = steps.stop(state.path)
    except steps.NoRun:
        is_early = True
        if not _is_over(state):
            raise GadgetError(f"the run in {folder} does not answer", f"read {folder / _LOG}") from None
    early = ("the tracing ended before kubectl gadget ci stop",) if is_early else ()
    deadline = time.monotonic() + _STOP_SECONDS
    while not _is_over(state):
        if time.monotonic() > deadline:
            raise GadgetError(f"the run in {folder} does not end", f"read {folder / _LOG}")
        time.sleep(_POLL_SECONDS)
    try:
        report = machine.parse_json(state.read(_RESULT))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise GadgetError(f"the run in {folder} left no result: {error}", f"read {folder / _LOG}") from None
    for name in (_LOCK, _RESULT):
        state.remove(name)
    return replace(report, incomplete=tuple(dict.fromkeys((*report.incomplete, *early))))


def _is_over(state: _State) -> bool:
    with state.locked() as free:
        return free
