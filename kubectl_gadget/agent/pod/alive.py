"""Liveness probe of an agent's pod: checks that the main process responds, not only that it exists.

`alive` signals the main process and waits for a byte in a FIFO that its main loop writes. The process that keeps
installed policies in force must have written its state recently. The trap: the kubelet runs this periodically on
every node, so it imports nothing else of the agent.
"""

import fcntl
import os
import select
import signal
import sys
import time
from contextlib import suppress

FOLDER = os.environ.get("KUBECTL_GADGET_RUN", "/dev/shm")
FIFO = f"{FOLDER}/kubectl-gadget.alive"
PID = f"{FOLDER}/kubectl-gadget.pid"
STATE = f"{FOLDER}/kubectl-gadget.policies"
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
