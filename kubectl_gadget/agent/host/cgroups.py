"""The node's cgroup v2 tree: where it is mounted, and one walk through it; and the mounts of any process.

A cgroup's id is the inode number of its directory (64-bit kernels, Linux 5.5). The trap: in a pod, /sys/fs/cgroup
is the pod's own; the node's tree is below $KUBECTL_GADGET_HOST. On hybrid hosts it is …/unified.
"""

import itertools
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from kubectl_gadget.agent.host import procfs, this_node
from kubectl_gadget.errors import AgentError

# /proc/PID/mountinfo (proc(5)), with the kernel's escapes undone. The trap: the optional fields end with a lone "-",
# and a path before them may be "-" as well.

_ESCAPED = rb"\\([0-3][0-7]{2})"
_PROPAGATION = (b"shared:", b"master:", b"propagate_from:", b"unbindable")
_FIXED = 6


class MountPoint(NamedTuple):
    """One line of mountinfo."""

    id: int
    parent: int
    device: int
    """12 bits of major, 20 of minor number"""
    root: bytes
    target: bytes
    options: bytes
    propagation: bytes
    type: bytes
    source: bytes
    super_options: bytes


def parse_mountinfo(data: bytes) -> Iterator[MountPoint]:
    """Yields the mounts. Lines that do not follow proc(5) are skipped."""
    for line in data.split(b"\n"):
        fields = line.split(b" ")
        try:
            dash = fields.index(b"-", _FIXED)
            major, minor = fields[2].split(b":")
            kind, source, *super_options = fields[dash + 1 :]
            tags = [field for field in fields[_FIXED:dash] if field.startswith(_PROPAGATION)]
            yield MountPoint(
                int(fields[0]),
                int(fields[1]),
                int(major) << 20 | int(minor),
                unescape(fields[3]),
                unescape(fields[4]),
                fields[5],
                b" ".join(tags) or b"private",
                unescape(kind),
                unescape(source),
                unescape(b" ".join(super_options)),
            )
        except (ValueError, IndexError):
            continue


def unescape(text: bytes) -> bytes:
    """Undoes the escapes: a backslash and three octal digits, for blanks, tabs, newlines, # and backslashes."""
    if b"\\" not in text:
        return text
    return re.sub(_ESCAPED, lambda found: bytes([int(found[1], 8)]), text)  # compiled here: hardly any path has one


# The tree of cgroups.

_MOST_BELOW = 64


class Cgroup(NamedTuple):
    """A cgroup. `path` is relative to the node's root, whose path is ""."""

    id: int
    parent: int
    path: str


def choose_mount(mounts: Iterable[MountPoint], host: str) -> str | None:
    """Returns the mount point of the node's cgroup v2 tree. `host` is the path of the node's root, "" for our own."""
    wanted = f"{host}/sys/fs/cgroup"
    points = [os.fsdecode(mount.target) for mount in mounts if mount.type == b"cgroup2"]
    below = [point for point in points if point == wanted or point.startswith(wanted + "/")]
    if below:
        return min(below, key=len)
    return points[0] if points and not host else None


def find_root() -> str:
    """Returns the path of the node's cgroup v2 tree. Raises AgentError when there is none."""
    host = this_node.host()
    point = choose_mount(parse_mountinfo(procfs.read("/proc/self/mountinfo")), host)
    if point is None:
        where = f" below {host}/sys/fs/cgroup" if host else ""
        raise AgentError(
            f"node {this_node.name()} has no cgroup v2 hierarchy{where}, so containers cannot be distinguished",
            "boot it with systemd.unified_cgroup_hierarchy=1"
            + (" (in a pod, the host's /sys/fs/cgroup has to be mounted there)" if host else ""),
        )
    return point


def walk(root: str, goes_below: Callable[[Cgroup], bool] = lambda _: True) -> Iterator[Cgroup]:
    """Yields all cgroups from the root down, each after its parent. Cgroups that vanish during the walk are left out.
    `goes_below` is called after a cgroup was yielded: whether to yield those below it as well."""
    top = Cgroup(os.stat(root).st_ino, 0, "")
    yield top
    unvisited = [top]
    while unvisited:
        above = unvisited.pop()
        if not goes_below(above):
            continue
        try:
            with os.scandir(f"{root}/{above.path}") as entries:
                found = [
                    Cgroup(entry.inode(), above.id, f"{above.path}/{entry.name}".lstrip("/"))
                    for entry in entries
                    if entry.is_dir(follow_symlinks=False)
                ]
        except PermissionError:
            raise
        except OSError:
            continue  # removed while we walked
        yield from found
        unvisited += found


def processes(root: str, path: str) -> list[int]:
    """Returns the PIDs in one cgroup, in this process's PID namespace; processes outside of it (0) are left out."""
    # Empty for a removed cgroup, and for a threaded one, which has no processes of its own.
    return [pid for line in procfs.read(f"{root}/{path}/cgroup.procs").split() if (pid := int(line))]


def below(root: str, path: str) -> Iterator[Cgroup]:
    """Yields the cgroups below one, level by level. Containers can make any number, so take only some: each costs
    little, and so does leaving the rest out. The parents' ids are left out (0)."""
    unread = deque([path])
    while unread:
        above = unread.popleft()
        try:
            with os.scandir(f"{root}/{above}") as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        found = Cgroup(entry.inode(), 0, f"{above}/{entry.name}".lstrip("/"))
                        unread.append(found.path)
                        yield found
        except OSError:
            continue  # removed


def first_process(root: str, path: str) -> int | None:
    """Returns a PID of the cgroup or, if it has no processes of its own, of one below it: crun with systemd moves a
    container's processes into SCOPE/container. Only some of those below are read."""
    for here in itertools.chain([path], (cgroup.path for cgroup in itertools.islice(below(root, path), _MOST_BELOW))):
        for pid in processes(root, here):
            return pid
    return None


def maker(root: str, path: str) -> int:
    """Returns the user who could make this cgroup: the owner of the one above; 0 when it is gone."""
    try:
        return os.stat(f"{root}/{os.path.dirname(path)}").st_uid
    except OSError:
        return 0


def own_id() -> int:
    """Returns the id of the cgroup at the root of this process's cgroup namespace; 0 if it is not mounted."""
    point = choose_mount(parse_mountinfo(procfs.read("/proc/self/mountinfo")), "")
    try:
        return os.stat(point).st_ino if point else 0
    except OSError:
        return 0
