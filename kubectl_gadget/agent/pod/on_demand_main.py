"""The main process of a pod that a run started: sleeps, reaps, and ends after a time without sessions.

The pod's command contains the text of this module and of presence.py (gadgets/pack_payload.py), since the pod has no
file of ours before the first session; so it also has to be valid for old Pythons. The trap: unless the pod has
hostPID, it is process 1 of its PID namespace, and then only an explicit handler makes SIGTERM end it.
"""

import os
import signal
import sys
import time
from contextlib import suppress

from kubectl_gadget.agent.pod import presence

CHECK_SECONDS = 5.0
"""Longest time in seconds between two checks for sessions."""
END = frozenset({signal.SIGTERM, signal.SIGINT})
FAREWELL = 4.5
"""Longest time in seconds until all sessions have ended. The pod is killed after five (manifests/daemonset.yaml)."""


class Idleness:
    """Measures for how long there has been no session, and ends those that run."""

    def __init__(self, timeout: float) -> None:
        """`timeout` is in seconds; 0: no limit."""
        self._timeout = timeout
        self._fd = presence.watch()
        self._used = time.monotonic()

    @property
    def turn(self) -> float | None:
        """The seconds between two checks; None if none are needed."""
        return min(CHECK_SECONDS, self._timeout / 4) if self._timeout > 0 else None

    def is_over(self) -> bool:
        """True if the pod has been idle for too long."""
        if self._timeout <= 0:
            return False
        now = time.monotonic()
        if presence.sessions(self._fd):
            self._used = now
        # A session may have started and ended between two checks.
        self._used = max(self._used, now - (time.time() - presence.last_start(self._fd)))
        return now - self._used >= self._timeout

    def end_sessions(self) -> None:
        """Signals the sessions to end, and waits for that. When this process ends, the runtime kills all others in the
        container, and what a session has not sent by then is lost."""
        until = time.monotonic() + FAREWELL
        with suppress(OSError):  # the list of locks cannot be read
            for pid in presence.holders(self._fd):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
        while presence.sessions(self._fd) and time.monotonic() < until:
            reap()
            time.sleep(0.02)


def sleep(signals: set[signal.Signals], seconds: float | None) -> int | None:
    """Returns the signal that arrived; None when the time passed first."""
    if seconds is None:
        return signal.sigwaitinfo(signals).si_signo
    got = signal.sigtimedwait(signals, seconds)
    return got.si_signo if got else None


def reap() -> list[int]:
    """Reaps and returns the child processes that have ended."""
    found: list[int] = []
    try:
        while True:
            pid = os.waitpid(-1, os.WNOHANG)[0]
            if not pid:
                return found
            found.append(pid)
    except ChildProcessError:
        return found  # none left


def run(timeout: float) -> int:
    """Runs until SIGTERM, or until there was no session for `timeout` seconds. Returns the exit code."""
    signals = {*END, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    idleness = Idleness(timeout)
    while True:
        got = sleep(signals, idleness.turn)
        if got in END:
            idleness.end_sessions()
            return 0
        if got == signal.SIGCHLD:
            reap()
        if idleness.is_over():
            return 0


if __name__ == "__main__":
    sys.exit(run(float(sys.argv[1])))
