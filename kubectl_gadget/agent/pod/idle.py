"""The main process of a resident agent's pod, and of pods of our image: sleeps, reaps, ends after a time without use.

Where policies are installed it starts the process that has them in force (agent/installed/guard.py), and again when
that ends. It holds no thread, no timer that fires often and no library. The trap: with hostPID it is not process 1 of
its PID namespace, without it is, and then nothing but an explicit handler makes SIGTERM end it.
"""

import os
import signal
import sys
import time

from kubectl_gadget.agent.host import node
from kubectl_gadget.agent.pod import alive, on_demand, presence

_AGAIN = (0.0, 1.0, 5.0, 30.0)
"""Seconds until the process for policies is started again, by how often it ended soon."""
_SOON = 60.0
_SIGNALS = {*on_demand.END, signal.SIGCHLD, alive.SIGNAL}


def run(timeout: float, policies: str = "") -> int:
    """Until SIGTERM, or until no session ran for `timeout` seconds (0: for ever). The exit code. `policies` is the
    folder in which installed policies appear."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    alive.announce()
    idleness = on_demand.Idleness(timeout)
    guard = _Guard(policies) if policies else None
    seconds = idleness.turn or (on_demand.LOOK_EVERY if guard else None)
    while True:
        if guard:
            guard.look()
        got = on_demand.sleep(_SIGNALS, seconds)
        if got == signal.SIGCHLD:
            ended = on_demand.reap()
            if guard:
                guard.reaped(ended)
        elif got == alive.SIGNAL:
            alive.answer()
        elif got is not None:
            if guard:
                guard.stop()
            return 0
        if idleness.is_over():
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
        # As this process was started.
        command = [sys.executable, *sys.orig_argv[1 : sys.orig_argv.index("idle")], "policies", self._folder]
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
