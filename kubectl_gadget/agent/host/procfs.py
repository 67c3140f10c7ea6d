"""Reads /proc about other processes: runtimes and shims that may end at any time.

So every function here returns something for a process that is gone. The trap: cwd and root of another user's process
need CAP_SYS_PTRACE, and PIDs are those of the PID namespace in which /proc was mounted.
"""

import os

_PF_EXITING = 4
"""include/linux/sched.h; set from the start of a thread's exit until it is reaped"""


def command_line(pid: int) -> list[str]:
    """Returns a process's arguments; [] when it is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read(1 << 16).decode(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return []


def parent(pid: int) -> int:
    """Returns a process's parent; 0 when it is gone or has none here."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The command name, in parentheses, may contain any characters.
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def start_ticks(pid: int) -> int:
    """Returns when a process was forked, in clock ticks since boot; 0 when it is gone or all its threads exit."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        is_ending = int(fields[6]) & _PF_EXITING and int(fields[17]) <= 1
        return 0 if is_ending else int(fields[19])
    except (OSError, ValueError, IndexError):
        return 0


def cgroup(pid: int) -> str:
    """Returns the path of a process's cgroup v2."""
    try:
        with open(f"/proc/{pid}/cgroup", errors="replace") as file:
            return next((line.rstrip("\n")[3:] for line in file if line.startswith("0::")), "")
    except OSError:
        return ""


def link(path: str) -> str:
    """Returns the target of a link in /proc; "" when the process is gone or may not be accessed."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


def own_pid(pid: int) -> int:
    """Returns a process's PID in its own PID namespace; the given one when it is gone."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            line = next(line for line in file if line.startswith(b"NSpid:"))
            return int(line.split()[-1])
    except (OSError, ValueError, StopIteration):
        return pid


def record_head(pid: int) -> dict[str, int | bytes]:
    """Returns the fields of a record's head that describe a process; only its PID when it is gone."""
    status = _status(pid)
    parent = int(status.get(b"PPid", b"0"))
    return {
        "pid": pid,
        "tid": pid,
        "ppid": parent,
        "uid": int(status.get(b"Uid", b"-1").split()[0]) & 0xFFFF_FFFF,
        "gid": int(status.get(b"Gid", b"-1").split()[0]) & 0xFFFF_FFFF,
        "container_pid": int(status.get(b"NSpid", b"0").split()[-1]),
        "comm": comm(pid),
        "parent_comm": comm(parent),
    }


def comm(pid: int) -> bytes:
    """Returns a process's name; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read().removesuffix(b"\n")
    except OSError:
        return b""


def _status(pid: int) -> dict[bytes, bytes]:
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            lines = file.read().split(b"\n")
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(b":") for line in lines)}
