"""The main process of a pod that a run started: sleeps, reaps, and ends after a time without any session.

The pod's command has this module's text and presence.py's (catalogue/payload.py), since there is no file of ours in
such a pod before the first session; so it has to be valid for old Pythons, too. The trap: with hostPID it is not
process 1 of its PID namespace, without it is, and then nothing but an explicit handler makes SIGTERM end it.
"""

import os
import signal
import sys
import time

from kubectl_gadget.agent.pod import presence

LOOK_EVERY = 5.0
"""Seconds between two looks for sessions, at most."""
END = frozenset({signal.SIGTERM, signal.SIGINT})


class Idleness:
    """How long no session has run."""

    def __init__(self, timeout: float) -> None:
        """`timeout` in seconds; 0: for ever."""
        self._timeout = timeout
        self._fd = presence.watch()
        self._used = time.monotonic()

    @property
    def turn(self) -> float | None:
        """Seconds until the next look; None: none is needed."""
        return min(LOOK_EVERY, self._timeout / 4) if self._timeout > 0 else None

    def is_over(self) -> bool:
        """Whether the pod has been idle for too long."""
        if self._timeout <= 0:
            return False
        now = time.monotonic()
        if presence.sessions(self._fd):
            self._used = now
        # A session may have come and gone between two looks.
        self._used = max(self._used, now - (time.time() - presence.last_start(self._fd)))
        return now - self._used >= self._timeout


def sleep(signals: set[signal.Signals], seconds: float | None) -> int | None:
    """The signal that came; None when the time is over first."""
    if seconds is None:
        return signal.sigwaitinfo(signals).si_signo
    got = signal.sigtimedwait(signals, seconds)
    return got.si_signo if got else None


def reap() -> list[int]:
    """The processes that have ended."""
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
    """Until SIGTERM, or until no session ran for `timeout` seconds. The exit code."""
    signals = {*END, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    idleness = Idleness(timeout)
    while True:
        got = sleep(signals, idleness.turn)
        if got in END:
            return 0
        if got == signal.SIGCHLD:
            reap()
        if idleness.is_over():
            return 0


if __name__ == "__main__":
    sys.exit(run(float(sys.argv[1])))
