"""The node's cgroup v2 tree: where it is mounted, and one walk through it.

A cgroup's id is the inode number of its directory (64-bit kernels, Linux 5.5). The trap: in a pod, /sys/fs/cgroup is
the pod's own; the node's tree is below $KUBECTL_GADGET_HOST. On hybrid hosts it is …/unified.
"""

import itertools
import os
from collections.abc import Iterator
from typing import NamedTuple

from kubectl_gadget.agent.host import this_node
from kubectl_gadget.agent.host.mountinfo import parse_mountinfo
from kubectl_gadget.errors import AgentError

_MOST_BELOW = 64


class CgroupMount(NamedTuple):
    """A line of /proc/self/mountinfo: the mounted file system's root, where it is mounted, and its type."""

    root: str
    point: str
    type: str


class Cgroup(NamedTuple):
    """A cgroup. `path` is relative to the node's root, whose path is ""."""

    id: int
    parent: int
    path: str


def parse_mounts(data: bytes) -> list[CgroupMount]:
    """Parses proc(5)'s mountinfo."""
    return [CgroupMount(*map(os.fsdecode, (found.root, found.target, found.type))) for found in parse_mountinfo(data)]


def choose_mount(mounts: list[CgroupMount], host: str) -> str | None:
    """Returns the mount point of the node's cgroup v2 tree. `host` is the path of the node's root, "" for our own."""
    wanted = f"{host}/sys/fs/cgroup"
    points = [mount.point for mount in mounts if mount.type == "cgroup2"]
    below = [point for point in points if point == wanted or point.startswith(wanted + "/")]
    if below:
        return min(below, key=len)
    return points[0] if points and not host else None


def find_root() -> str:
    """Returns the path of the node's cgroup v2 tree. Raises AgentError when there is none."""
    host = this_node.host()
    with open("/proc/self/mountinfo", "rb") as file:
        mounts = parse_mounts(file.read())
    point = choose_mount(mounts, host)
    if point is None:
        where = f" below {host}/sys/fs/cgroup" if host else ""
        raise AgentError(
            f"node {this_node.name()} has no cgroup v2 hierarchy{where}, so containers cannot be distinguished",
            "boot it with systemd.unified_cgroup_hierarchy=1"
            + (" (in a pod, the host's /sys/fs/cgroup has to be mounted there)" if host else ""),
        )
    return point


def walk(root: str) -> Iterator[Cgroup]:
    """Yields all cgroups from the root down, each after its parent. Cgroups that vanish meanwhile are left out."""
    top = Cgroup(os.stat(root).st_ino, 0, "")
    yield top
    unvisited = [top]
    while unvisited:
        above = unvisited.pop()
        try:
            with os.scandir(f"{root}/{above.path}") as entries:
                found = [
                    Cgroup(entry.inode(), above.id, f"{above.path}/{entry.name}".lstrip("/"))
                    for entry in entries
                    if entry.is_dir(follow_symlinks=False)
                ]
        except (FileNotFoundError, OSError) as error:
            if isinstance(error, PermissionError):
                raise
            continue  # removed while we walked
        yield from found
        unvisited += found


def processes(root: str, path: str) -> list[int]:
    """Returns the PIDs in one cgroup, in this process's PID namespace; processes outside of it (0) are left out."""
    try:
        with open(f"{root}/{path}/cgroup.procs") as file:
            return [pid for line in file if (pid := int(line))]
    except OSError:
        return []  # removed, or a threaded cgroup, which has no processes of its own


def first_process(root: str, path: str) -> int | None:
    """Returns a PID of the cgroup or, if it has no processes of its own, of one below it: crun with systemd moves a
    container's processes into SCOPE/container. Containers can make any number below theirs, so only some are read."""
    top = f"{root}/{path}"
    try:
        for cgroup in itertools.islice(walk(top), _MOST_BELOW):
            for pid in processes(top, cgroup.path):
                return pid
    except OSError:
        pass  # removed
    return None
