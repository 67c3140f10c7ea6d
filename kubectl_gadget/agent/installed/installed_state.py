"""The state that the process of the installed policies publishes to sessions in the same pod."""

import fcntl
import os

from kubectl_gadget.agent.pod import presence
from kubectl_gadget.errors import AgentError, FrameError
from kubectl_gadget.wire.agent_messages import PoliciesState
from kubectl_gadget.wire.message import read

STATE = f"{presence.FOLDER}/kubectl-gadget.policies"
"""What is in force, as JSON; the process that wrote it holds a lock on STATE.lock."""


def state() -> PoliciesState | None:
    """Returns what is in force on this node; None when no process of this pod manages policies."""
    try:
        lock = os.open(f"{STATE}.lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        running = True
    else:
        running = False
    finally:
        os.close(lock)
    try:
        with open(STATE, "rb") as file:
            return read(PoliciesState, file.read(), STATE).replace(running=running)
    except (OSError, FrameError):
        return None


def write_state(state: PoliciesState) -> None:
    """Replaces the published state."""
    with open(f"{STATE}.new", "wb") as file:
        file.write(state.to_bytes())
    os.replace(f"{STATE}.new", STATE)


def lock_state() -> None:
    """Claims the state for this process, until it ends. Raises AgentError when another process holds it."""
    lock = os.open(f"{STATE}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise AgentError("another process of this pod already runs the installed policies") from None
