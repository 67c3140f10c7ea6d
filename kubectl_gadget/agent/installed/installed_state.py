"""What the process that has installed policies in force says of itself, for sessions in the same pod."""

import fcntl
import json
import os
from typing import Any

from kubectl_gadget.agent.pod import presence
from kubectl_gadget.errors import AgentError

STATE = f"{presence.FOLDER}/kubectl-gadget.policies"
"""What is in force, as JSON; the process that wrote it holds a lock on STATE.lock."""


def state() -> dict[str, Any] | None:
    """What is in force on this node; None when no process of this pod has anything to do with it."""
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
        with open(STATE) as file:
            found = json.load(file)
    except (OSError, ValueError):
        return None
    return found | {"running": running} if isinstance(found, dict) else None


def write_state(value: dict[str, Any]) -> None:
    """Replaces what was said before."""
    with open(f"{STATE}.new", "w") as file:
        json.dump(value, file)
    os.replace(f"{STATE}.new", STATE)


def lock_state() -> None:
    """Says that this process is the one, until it ends. Raises AgentError when another one is."""
    lock = os.open(f"{STATE}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise AgentError("another process of this pod has the installed policies") from None
