"""Detects sessions, for the pod's main process: each holds a shared lock on one file, released at its end.

Only `idle` creates the file, so a session outside of such a pod leaves no trace. The pod's root is read-only; /dev/shm
is writable in every container and shared by all processes in it.
"""

import fcntl
import os
from contextlib import suppress

FOLDER = os.environ.get("KUBECTL_GADGET_RUN", "/dev/shm")
"""Folder of files that the processes of one pod share."""
RELEASE = f"{FOLDER}/kubectl-gadget.release"
"""While this file exists, no installed policies may be in force."""
PATH = f"{FOLDER}/kubectl-gadget.sessions"


def announce(path: str = PATH) -> int | None:
    """Marks a running session, until this process ends. Returns the lock's file descriptor; None if there is no
    file."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    fcntl.flock(fd, fcntl.LOCK_SH)  # sessions() may hold it for a moment
    os.utime(fd)
    return fd


def watch(path: str = PATH) -> int:
    """Creates the file. Returns its file descriptor, for sessions()."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def sessions(fd: int) -> bool:
    """True if a session runs now."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def holders(fd: int) -> list[int]:
    """Returns the processes of the sessions that run now. The traps: on a file system whose stat() reports another
    device than the kernel's list of locks, such as btrfs, none is found. And a lock that a session's child still holds
    is listed with the session's PID, which another process may have by now."""
    status = os.fstat(fd)
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with open("/proc/locks") as locks:
        words = [line.split() for line in locks]  # 1: FLOCK ADVISORY READ 4711 00:1b:5 0 EOF
    found = [int(each[4]) for each in words if each[1:4] == ["FLOCK", "ADVISORY", "READ"] and each[5] == file]
    return [pid for pid in found if _has_open(pid, status)]


def _has_open(pid: int, file: os.stat_result) -> bool:
    folder = f"/proc/{pid}/fd"
    with suppress(OSError):  # it has ended
        for name in os.listdir(folder):
            with suppress(OSError):  # that one was closed
                if os.path.samestat(os.stat(f"{folder}/{name}"), file):
                    return True
    return False


def last_start(fd: int) -> float:
    """Returns when the latest session started, or the file was created: seconds since the epoch."""
    return os.fstat(fd).st_mtime
