"""The pod's main process: sleeps, reaps, and ends after a time without any session.

It holds no thread, no timer that fires often and no library. The trap: with hostPID it is not process 1 of its PID
namespace, without it is, and then nothing but an explicit handler makes SIGTERM end it.
"""

import os
import signal
import time

from kubectl_gadget.agent import presence

_LOOK_EVERY = 5.0
"""Seconds between two looks for sessions, at most."""
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}


def run(timeout: float) -> int:
    """Until SIGTERM, or until no session ran for `timeout` seconds (0: for ever). The exit code."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    fd = presence.watch()
    used = time.monotonic()
    while True:
        got = _sleep(min(_LOOK_EVERY, timeout / 4) if timeout > 0 else None)
        if got == signal.SIGCHLD:
            _reap()
        elif got is not None:
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


def _sleep(seconds: float | None) -> int | None:
    """The signal that came; None when the time is over first."""
    if seconds is None:
        return signal.sigwaitinfo(_SIGNALS).si_signo
    got = signal.sigtimedwait(_SIGNALS, seconds)
    return got.si_signo if got else None


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return  # none left
