"""The mounts in each mount namespace of the wanted containers, from /proc/PID/mountinfo.

One process represents each namespace; of a namespace that host and container share, it is a process of the container.
The trap: the file shows what that process can see, so a mount outside of its root is missing, and a removed one is
`//deleted`.
"""

import os
from collections.abc import Iterator

from kubectl_gadget.agent.answers.samplers import Row, Sampler
from kubectl_gadget.agent.host import procfs
from kubectl_gadget.agent.host.cgroups import parse_mountinfo


class Mounts(Sampler):
    """The sampler `mounts`."""

    def rows(self) -> Iterator[Row]:
        """Yields a row for each mount, once for each namespace."""
        seen: set[str] = set()
        unread = 0
        places = {cgroup: place for place, (cgroup, _) in enumerate(self._containers.wanted())}
        found = self._containers.processes().items()
        for _, pid, cgroup in sorted((places[cgroup], pid, cgroup) for pid, cgroup in found if cgroup in places):
            try:
                namespace = os.readlink(f"/proc/{pid}/ns/mnt")
                if namespace in seen:
                    continue
                with open(f"/proc/{pid}/mountinfo", "rb") as file:
                    data = file.read()
            except PermissionError:
                unread += 1
                continue
            except OSError:
                continue  # it has ended
            seen.add(namespace)
            yield from _rows(cgroup, pid, namespace, data)
        if unread:
            self.warnings.append(f"the mounts of {unread} processes could not be read (this needs CAP_SYS_PTRACE)")


def _rows(cgroup: int, pid: int, namespace: str, data: bytes) -> Iterator[Row]:
    head = procfs.record_head(pid)
    number = int(namespace.removeprefix("mnt:[").removesuffix("]"))
    for mount in parse_mountinfo(data):
        yield {
            "cgroup": cgroup,
            **head,
            "mount_namespace": number,
            "mount_id": mount.id,
            "parent_id": mount.parent,
            "device": mount.device,
            "root": mount.root,
            "target": mount.target,
            "options": mount.options,
            "propagation": mount.propagation,
            "type": mount.type,
            "source": mount.source,
            "super_options": mount.super_options,
        }
