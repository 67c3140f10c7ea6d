"""The pod's main process: sleeps, reaps, and ends after a time without any session.

Where policies are installed it starts the process that has them in force (guard.py), and again when that ends. It holds
no thread, no timer that fires often and no library. The trap: with hostPID it is not process 1 of its PID namespace,
without it is, and then nothing but an explicit handler makes SIGTERM end it.
"""

import os
import signal
import sys
import time

from kubectl_gadget.agent import alive, node, presence

_LOOK_EVERY = 5.0
"""Seconds between two looks for sessions, at most."""
_AGAIN = (0.0, 1.0, 5.0, 30.0)
"""Seconds until the process for policies is started again, by how often it ended soon."""
_SOON = 60.0
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, alive.SIGNAL}


def run(timeout: float, policies: str = "") -> int:
    """Until SIGTERM, or until no session ran for `timeout` seconds (0: for ever). The exit code. `policies` is the
    folder in which installed policies appear."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    alive.announce()
    fd = presence.watch()
    used = time.monotonic()
    guard = _Guard(policies) if policies else None
    seconds = min(_LOOK_EVERY, timeout / 4) if timeout > 0 else None
    while True:
        if guard:
            guard.look()
        got = _sleep(_LOOK_EVERY if guard and seconds is None else seconds)
        if got == signal.SIGCHLD:
            ended = _reap()
            if guard:
                guard.reaped(ended)
        elif got == alive.SIGNAL:
            alive.answer()
        elif got is not None:
            if guard:
                guard.stop()
            return 0
        if timeout <= 0:
            continue
        now = time.monotonic()
        if presence.sessions(fd):
            used = now
        # A session may have come and gone between two looks.
        used = max(used, now - (time.time() - presence.last_start(fd)))
        if now - used >= timeout:
            return 0


class _Guard:
    """The process for installed policies."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._pid = 0
        self._began = self._due = 0.0
        self._failures = 0

    def look(self) -> None:
        """Starts it when there is something for it to do."""
        if self._pid or time.monotonic() < self._due or os.path.exists(presence.RELEASE):
            return
        # What is pinned has to be looked after as well, if only to take it away.
        if not os.path.exists(f"{self._folder}/policies.zip") and not os.path.isdir(node.pins()):
            return
        command = [sys.executable, "-I", "-m", "kubectl_gadget.agent", "policies", self._folder]
        self._pid = os.posix_spawn(sys.executable, command, os.environ, setsigmask=())
        self._began = time.monotonic()

    def reaped(self, pids: list[int]) -> None:
        """It is started again at the next look, or later when it ends again and again."""
        if self._pid not in pids:
            return
        self._pid = 0
        now = time.monotonic()
        self._failures = self._failures + 1 if now - self._began < _SOON else 0
        self._due = now + _AGAIN[min(self._failures, len(_AGAIN) - 1)]

    def stop(self) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGTERM)


def _sleep(seconds: float | None) -> int | None:
    """The signal that came; None when the time is over first."""
    if seconds is None:
        return signal.sigwaitinfo(_SIGNALS).si_signo
    got = signal.sigtimedwait(_SIGNALS, seconds)
    return got.si_signo if got else None


def _reap() -> list[int]:
    """The processes that have ended."""
    found = []
    try:
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            found.append(pid)
    except ChildProcessError:
        pass  # none left
    return found
