"""Reads /proc, mostly about other processes, which may end at any time: all functions return a value for these, too.

The cwd and root of another user's process need CAP_SYS_PTRACE, and PIDs are those of the PID namespace in which /proc
was mounted.
"""

import os
from collections.abc import Iterator

_PF_EXITING = 4
"""include/linux/sched.h; set from the start of a thread's exit until it is reaped"""


def read(path: str, most: int = -1) -> bytes:
    """Returns at most this many bytes of a file; empty when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(most)
    except OSError:
        return b""


def listed(folder: str) -> list[str]:
    """Returns the sorted names in a folder; [] when it is gone or may not be read."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def pids() -> set[int]:
    """Returns the PIDs of all processes."""
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


def command_line(pid: int) -> list[str]:
    """Returns a process's arguments; [] when it is gone."""
    text = read(f"/proc/{pid}/cmdline", 1 << 16)
    return text.decode(errors="replace").rstrip("\0").split("\0") if text else []


def stat(pid: int) -> list[int]:
    """Returns the numbers of /proc/PID/stat, from the parent on; [] when the process is gone."""
    # The command name, in parentheses, may contain any characters; the state follows it.
    return list(map(int, read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[1:]))


def parent(pid: int) -> int:
    """Returns the PID of a process's parent; 0 when the process is gone, or its parent is not visible here."""
    return (stat(pid) or [0])[0]


def start_ticks(pid: int) -> int:
    """Returns when a process was forked, in clock ticks since boot; 0 when it is gone or all its threads exit."""
    fields = stat(pid)
    return 0 if not fields or (fields[5] & _PF_EXITING and fields[16] <= 1) else fields[18]


def cgroup(pid: int) -> str:
    """Returns the path of a process's cgroup v2; "" when it is gone."""
    lines = read(f"/proc/{pid}/cgroup").decode(errors="replace").splitlines()
    return next((line[3:] for line in lines if line.startswith("0::")), "")


def link(path: str) -> str:
    """Returns the target of a link in /proc; "" when the process is gone or may not be accessed."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


def bpf_objects(pid: int, name: bytes) -> Iterator[tuple[int, int]]:
    """Yields the descriptors by which a process holds BPF objects, and their ids; `name` is the member of fdinfo with
    the id: b"map_id", or b"prog_id", which links have as well."""
    for fd in listed(f"/proc/{pid}/fd"):
        if link(f"/proc/{pid}/fd/{fd}").startswith("anon_inode:bpf"):
            for line in read(f"/proc/{pid}/fdinfo/{fd}").splitlines():  # none if it has been closed
                if line.startswith(name + b":"):
                    yield int(fd), int(line.split()[1])


def own_pid(pid: int) -> int:
    """Returns a process's PID in its own PID namespace; the given one when it is gone."""
    return int(_status(pid).get(b"NSpid", b"%d" % pid).split()[-1])


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
    return read(f"/proc/{pid}/comm").removesuffix(b"\n")


def _status(pid: int) -> dict[bytes, bytes]:
    lines = read(f"/proc/{pid}/status").split(b"\n")
    return {name: value.strip() for name, _, value in (line.partition(b":") for line in lines)}
