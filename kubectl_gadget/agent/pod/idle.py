"""The main process of a resident agent's pod, and of pods of our image: sleeps, reaps, and ends after a time without
sessions.

If policies are installed, it starts the process that keeps them in force (agent/installed/guard.py), and restarts it
when it ends. It uses no thread, no frequent timer and no library. The trap: unless the pod has hostPID, it is process 1
of its PID namespace, and then only an explicit handler makes SIGTERM end it.
"""

import os
import signal
import sys
import time

from kubectl_gadget.agent.host import this_node
from kubectl_gadget.agent.pod import alive, on_demand_main, presence

_RETRIES = (0.0, 1.0, 5.0, 30.0)
"""Seconds until the process for policies is restarted, by the number of times that it ended early."""
_EARLY = 60.0
"""Seconds; a process that ends before has failed."""
_SIGNALS = {*on_demand_main.END, signal.SIGCHLD, alive.SIGNAL}


def run(timeout: float, policies: str = "") -> int:
    """Runs until SIGTERM, or until there was no session for `timeout` seconds (0: no limit). Returns the exit code.
    `policies` is the folder in which installed policies appear."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    alive.announce()
    idleness = on_demand_main.Idleness(timeout)
    guard = _Guard(policies) if policies else None
    seconds = idleness.turn or (on_demand_main.CHECK_SECONDS if guard else None)
    while True:
        if guard:
            guard.start_if_needed()
        got = on_demand_main.sleep(_SIGNALS, seconds)
        if got == signal.SIGCHLD:
            ended = on_demand_main.reap()
            if guard:
                guard.reaped(ended)
        elif got == alive.SIGNAL:
            alive.answer()
        elif got is not None:
            if guard:
                guard.stop()
            idleness.end_sessions()
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

    def start_if_needed(self) -> None:
        """Starts the process if policies are installed or pinned, and it does not run."""
        if self._pid or time.monotonic() < self._due or os.path.exists(presence.RELEASE):
            return
        # Pinned policies need the process as well, if only to remove them.
        if not os.path.exists(f"{self._folder}/policies.zip") and not os.path.isdir(this_node.pins()):
            return
        # The same interpreter and options as this process.
        command = [sys.executable, *sys.orig_argv[1 : sys.orig_argv.index("idle")], "policies", self._folder]
        self._pid = os.posix_spawn(sys.executable, command, os.environ, setsigmask=())
        self._began = time.monotonic()

    def reaped(self, pids: list[int]) -> None:
        """Call it with the PIDs of ended processes. The process is restarted soon, or later if it ends repeatedly."""
        if self._pid not in pids:
            return
        self._pid = 0
        now = time.monotonic()
        self._failures = self._failures + 1 if now - self._began < _EARLY else 0
        self._due = now + _RETRIES[min(self._failures, len(_RETRIES) - 1)]

    def stop(self) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGTERM)
