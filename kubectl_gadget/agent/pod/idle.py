"""The main process of a resident agent's pod, and of pods of our image: sleeps, reaps, and ends after a time without
sessions; and the liveness probe that asks it.

If policies are installed, it starts the process that keeps them in force (agent/installed/guard.py), and restarts it
when it ends. It uses no thread, no frequent timer and no library. Unless the pod has hostPID, it is process 1 of its
PID namespace, and then only an explicit handler makes SIGTERM end it. And both stay small: the one is in memory on
every node, and the kubelet runs the other periodically there.
"""

import fcntl
import os
import select
import signal
import sys
import time
from contextlib import suppress

from kubectl_gadget.agent.host import this_node
from kubectl_gadget.agent.pod import on_demand_main, presence

# The liveness probe: checks that the main process responds, not only that it exists. `alive` signals it and waits for a
# byte in a FIFO that its main loop writes. The process that keeps installed policies in force must have written its
# state recently.

FIFO = f"{presence.FOLDER}/kubectl-gadget.alive"
PID = f"{presence.FOLDER}/kubectl-gadget.pid"
STATE = f"{presence.FOLDER}/kubectl-gadget.policies"
"""STATE of agent/installed/feed.py, which is written at least every five seconds."""
_SILENCE = 180.0
"""Seconds after which that process counts as stuck."""
SIGNAL = signal.SIGUSR1
_PATIENCE = 5.0
"""Seconds to wait for the answer; less than the manifest's timeoutSeconds."""


def announce() -> None:
    """Announces which process answers. Called by the pod's main process, which has SIGNAL blocked by then."""
    for path in (FIFO, PID):
        with suppress(FileNotFoundError):
            os.unlink(path)
    os.mkfifo(FIFO, 0o600)
    with open(PID, "x") as file:
        file.write(str(os.getpid()))


def answer() -> None:
    """Answers a probe. Called by the main loop after SIGNAL."""
    with suppress(OSError):  # the probe has ended
        fd = os.open(FIFO, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.write(fd, b".")
        finally:
            os.close(fd)


def ask(patience: float = _PATIENCE) -> int:
    """Asks the main process. Returns the exit code."""
    try:
        with open(PID) as file:
            pid = int(file.read())
        fifo = os.open(FIFO, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"the agent has not started: {error}\n")
        return 1
    try:
        os.kill(pid, SIGNAL)
    except ProcessLookupError:
        sys.stderr.write(f"the agent's main process, {pid}, has ended\n")
        return 1
    answer = select.poll()
    answer.register(fifo, select.POLLIN)
    if answer.poll(patience * 1000) and os.read(fifo, 1):
        return _policies()
    sys.stderr.write(f"the agent's main process, {pid}, does not answer within {patience:g} s\n")
    return 1


def _policies() -> int:
    """Checks the process for policies (agent/installed/guard.py), if there is one. Returns the exit code."""
    try:
        with open(f"{STATE}.lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        pass
    except OSError:
        return 0
    else:
        return 0  # the main process will restart it
    with suppress(FileNotFoundError):
        silent = time.time() - os.stat(STATE).st_mtime
        if silent > _SILENCE:
            sys.stderr.write(f"the process for installed policies has not acted for {silent:.0f} s\n")
            return 1
    return 0


# The main process.

_RETRIES = (0.0, 1.0, 5.0, 30.0)
"""Seconds until the process for policies is restarted, by the number of times that it ended early."""
_EARLY = 60.0
"""Seconds; a process that ends before has failed."""
_SIGNALS = {*on_demand_main.END, signal.SIGCHLD, SIGNAL}


def run(timeout: float, policies: str = "") -> int:
    """Runs until SIGTERM, or until there was no session for `timeout` seconds (0: no limit). Returns the exit code.
    `policies` is the folder in which installed policies appear."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    announce()
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
        elif got == SIGNAL:
            answer()
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
        with open("/proc/self/cmdline", "rb") as file:
            own = os.fsdecode(file.read()).split("\0")
        command = [sys.executable, *own[1 : own.index("idle")], "policies", self._folder]
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
