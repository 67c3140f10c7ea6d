"""Runs bpf/containers.bpf.c: which cgroups are made and removed, and the depth of the agent's PID namespace.

The trap: changes must be read from the ring with the same care as events, since a name has to be known before the first
event; so this is a ring like those of gadgets.
"""

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from kubectl_gadget.agent.bpf import counters, libbpf
from kubectl_gadget.agent.bpf.counters import CpuCounters
from kubectl_gadget.agent.bpf.object import BpfObject
from kubectl_gadget.agent.bpf.own_objects import own_elf
from kubectl_gadget.agent.bpf.ring import open_ring
from kubectl_gadget.agent.kernel import refusal
from kubectl_gadget.errors import AgentError

_RING_BYTES = 256 << 10
_RECORD = struct.Struct("<IIQQII256s")  # ring buffer head, struct cgroup_change


class CgroupChange(NamedTuple):
    """A cgroup was made or removed, by process `pid`, 0 when not visible here. `name` is the directory's name."""

    cgroup: int
    parent: int
    pid: int
    made: bool
    name: str


class CgroupWatcher:
    """Follows all of the kernel's cgroups v2 from its creation on. Raises AgentError."""

    def __init__(self) -> None:
        try:
            self._object = BpfObject(own_elf("containers"), "containers")
            self._load()
        except libbpf.Failure as failure:
            raise refusal.refused("following containers", failure) from None

    def _load(self) -> None:
        events, cpus = self._object.map("gadget_events"), self._object.map("gadget_cpus")
        if events is None or cpus is None:
            raise AgentError("containers.bpf.o is not of this version", "build the BPF objects again")
        events.resize(_RING_BYTES)
        cpus.resize(libbpf.load().call("libbpf_num_possible_cpus"))
        self._object.load()
        self.pid_level = self._object.run("locate")
        for program in self._object.chosen:
            if program != "locate":
                self._object.attach(program)
        self._counters = CpuCounters(cpus.fd, cpus.entries)
        self._ring = open_ring(events.fd, events.entries, self._counters)
        self.fd = events.fd

    @property
    def lost(self) -> int:
        """Changes since the start that did not fit into the ring. After a loss the tree has to be walked again."""
        return self._counters.total(counters.LOST_RING_FULL)

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
        self._ring.close()
        self._counters.close()
        self._object.close()
