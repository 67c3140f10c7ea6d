"""What /proc says about other processes: runtimes and shims that come and go while we look.

So every function here has an answer for a process that is gone. The trap: cwd and root of another user's process need
CAP_SYS_PTRACE, and numbers are those of the PID namespace that /proc was mounted in.
"""

import os

_PF_EXITING = 4
"""include/linux/sched.h; set from the first moment of a thread's end until somebody has waited for it"""


def command_line(pid: int) -> list[str]:
    """A process's arguments; [] when it is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read(1 << 16).decode(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return []


def parent(pid: int) -> int:
    """A process's parent; 0 when it is gone or has none here."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The command name, in parentheses, may hold anything.
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def start_ticks(pid: int) -> int:
    """When a process was forked, in clock ticks since the boot; 0 when it is gone, or about to end with all threads."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        is_ending = int(fields[6]) & _PF_EXITING and int(fields[17]) <= 1
        return 0 if is_ending else int(fields[19])
    except (OSError, ValueError, IndexError):
        return 0


def cgroup(pid: int) -> str:
    """Path of a process's cgroup v2."""
    try:
        with open(f"/proc/{pid}/cgroup", errors="replace") as file:
            return next((line.rstrip("\n")[3:] for line in file if line.startswith("0::")), "")
    except OSError:
        return ""


def link(path: str) -> str:
    """Where a link of /proc leads; "" when the process is gone or may not be looked at."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


def own_pid(pid: int) -> int:
    """A process's number in its own PID namespace; the given one when it is gone."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            line = next(line for line in file if line.startswith(b"NSpid:"))
            return int(line.split()[-1])
    except (OSError, ValueError, StopIteration):
        return pid


def record_head(pid: int) -> dict[str, int | bytes]:
    """What the head of a record says of a process, by field; only its number when it is gone."""
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
    """A process's name; empty when it is gone."""
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
