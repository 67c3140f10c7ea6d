"""Follows which cgroups are made and removed, and finds the depth of the agent's PID namespace (bpf/containers.bpf.c).

The trap: a container's name has to be known before its first event, so no change may be missed or delayed; the ring is
read like those of gadgets.
"""

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from kubectl_gadget.agent.bpf import maps
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.maps import CpuCounters
from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.bpf.ring import open_ring
from kubectl_gadget.agent.containers.container_programs import LOCATE, OF_CGROUPS
from kubectl_gadget.agent.kernel import refusal

_RECORD = struct.Struct("<IIQQII256s")  # ring buffer head, struct cgroup_change


class CgroupChange(NamedTuple):
    """A cgroup was made or removed by process `pid`, which is 0 if it is not visible here. `name`: the directory's."""

    cgroup: int
    parent: int
    pid: int
    made: bool
    name: str


class CgroupWatcher:
    """Follows all cgroups v2, from the creation of this object on. `object` is that of ContainerPrograms. Raises
    AgentError."""

    def __init__(self, object: BpfObject) -> None:
        events, cpus = object.required_map("gadget_events"), object.required_map("gadget_cpus")
        try:
            self.pid_level = object.run(LOCATE)
            for program in OF_CGROUPS:
                object.attach(program)
        except Failure as failure:
            raise refusal.refused("the program that follows containers", failure) from None
        self._counters = CpuCounters(cpus.fd, cpus.entries)
        self._ring = open_ring(events.fd, events.entries, self._counters)
        self.fd = events.fd

    @property
    def lost(self) -> int:
        """Number of changes since the start that did not fit into the ring. After a loss, walk the tree again."""
        return self._counters.total(maps.LOST_RING_FULL)

    @property
    def is_quiet(self) -> bool:
        """Whether there was no change since read()."""
        return self._ring.is_quiet

    def settle(self) -> bool:
        """Whether all changes before this call can now be read."""
        return self._ring.settle()

    def read(self) -> Iterator[CgroupChange]:
        """Yields the changes before the settled position."""
        batch = self._ring.batch()
        count = len(batch)
        changes = list(_RECORD.iter_unpack(batch))
        batch.release()
        self._ring.advance(count)
        for _, _, cgroup, parent, pid, made, name in changes:
            yield CgroupChange(cgroup, parent, pid, made == 1, os.fsdecode(name.partition(b"\0")[0]))

    def close(self) -> None:
        """Does not close `object`."""
        self._ring.close()
        self._counters.close()
