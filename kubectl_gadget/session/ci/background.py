"""A CI run in a process of its own, between `ci start` and `ci stop`, for pipelines whose steps are separate processes.

The folder of the state has the socket, the log, the lock that the process holds while it lives, and the result. The
trap: the process may be killed at any time, so the result is written at the start already, as inconclusive; whoever
finds the lock free reads it.
"""

import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn, TextIO

from kubectl_gadget.errors import GadgetError, UsageError
from kubectl_gadget.findings.finding import RunReport
from kubectl_gadget.findings.reports import json_report
from kubectl_gadget.session.ci import steps

DEFAULT_FOLDER = ".kubectl-gadget-ci"
_LOCK, _LOG, _RESULT = "lock", "log", "result.json"
_STOP_SECONDS = 60.0
_POLL_SECONDS = 0.05
_ATTACHED = b"attached\n"

Started = Callable[[], object]
Run = Callable[[TextIO, Started], RunReport]
"""Runs, with the log, and a function to be called when everything is attached. Raises GadgetError."""


def start(folder: Path, run: Run, first: RunReport) -> None:
    """Starts the process and returns when everything is attached. `first` is the result until there is another.

    Raises GadgetError with the reason when it could not be attached.
    """
    _prepare(folder)
    said, say = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if not pid:
        os.close(said)
        _live(folder, run, first, say)
    os.close(say)
    with os.fdopen(said, "rb") as stream:
        heard = stream.read()
    if heard != _ATTACHED:
        os.waitpid(pid, 0)
        text, _, remedy = heard.decode("utf-8", "replace").partition("\0")
        raise GadgetError(text or f"it ended at once; its log is {folder / _LOG}", remedy or None)


def _prepare(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o755, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: {error.strerror}", "--state FOLDER") from None
    _require_own(folder)
    with _locked(folder) as free:
        if not free:
            raise UsageError(f"a run is going on in {folder}", "kubectl gadget ci stop, or --state FOLDER")
        (folder / _RESULT).unlink(missing_ok=True)


def _require_own(folder: Path) -> None:
    """Raises UsageError for a folder that others can write: a step of the job might have put its own result there."""
    found = folder.lstat()
    if not folder.is_dir() or folder.is_symlink() or found.st_uid != os.geteuid():
        raise UsageError(f"{folder} belongs to another user", "--state FOLDER")
    if found.st_mode & 0o022:
        raise UsageError(f"{folder} can be written by other users", f"chmod go-w {folder}, or --state FOLDER")


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether no process holds the lock; it is held in the block then."""
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def _live(folder: Path, run: Run, first: RunReport, say: int) -> NoReturn:
    """The process. Never returns."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with _locked(folder) as free, (folder / _LOG).open("w", encoding="utf-8") as log:
            if not free:
                os.write(say, b"another run has just begun there")
                os._exit(1)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for descriptor in (1, 2):
                os.dup2(log.fileno(), descriptor)
            code = _run(folder, run, first, say, log)
    finally:
        os._exit(code)


def _run(folder: Path, run: Run, first: RunReport, say: int, log: TextIO) -> int:
    def attached() -> None:
        _keep(folder, first)
        os.write(say, _ATTACHED)
        os.close(say)

    try:
        _keep(folder, run(log, attached))
    except GadgetError as error:
        if (folder / _RESULT).exists():
            log.write(f"error: {error}\n")
        else:
            os.write(say, f"{error}\0{error.remedy or ''}".encode())
        return 1
    return 0


def _keep(folder: Path, report: RunReport) -> None:
    new = folder / f"{_RESULT}.new"
    new.write_text(json_report.render(report), encoding="utf-8")
    new.replace(folder / _RESULT)


def stop(folder: Path) -> RunReport:
    """Ends the run of `ci start`, and returns its report, also when the run has died. Raises GadgetError when there is
    none."""
    if not (folder / _LOCK).exists():
        raise UsageError(f"no run was started in {folder}", "kubectl gadget ci start, or --state FOLDER")
    _require_own(folder)
    early: tuple[str, ...] = ()
    try:
        steps.stop(folder)
    except steps.NoRun:
        # Whoever ended it: what came after that was not seen.
        early = ("the tracing ended before kubectl gadget ci stop",)
        with _locked(folder) as free:
            if not free:
                raise
    deadline = time.monotonic() + _STOP_SECONDS
    while not _is_over(folder):
        if time.monotonic() > deadline:
            raise GadgetError(f"the run in {folder} does not end", f"read {folder / _LOG}")
        time.sleep(_POLL_SECONDS)
    try:
        report = json_report.parse((folder / _RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise GadgetError(f"the run in {folder} left no result: {error}", f"read {folder / _LOG}") from None
    for name in (_LOCK, _RESULT):
        (folder / name).unlink(missing_ok=True)
    return replace(report, incomplete=tuple(dict.fromkeys((*report.incomplete, *early))))


def _is_over(folder: Path) -> bool:
    with _locked(folder) as free:
        return free
