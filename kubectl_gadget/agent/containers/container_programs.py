"""bpf/containers.bpf.c: loads it, follows cgroups by it (CgroupWatcher), and processes that leave their container's
cgroup (MovedProcesses).

The trap: the object fails to load if the kernel refuses one program, and sessions must also start where it refuses
those of moved processes. So the object is then opened again without them.
"""

import os
import struct
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from kubectl_gadget.agent.bpf import libbpf, maps
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.maps import CpuCounters, HashMap
from kubectl_gadget.agent.bpf.object import BpfObject, own_object
from kubectl_gadget.agent.bpf.ring import open_ring
from kubectl_gadget.agent.kernel import refusal
from kubectl_gadget.errors import AgentError

OF_CGROUPS = ("made", "removed")
LOCATE = "locate"
OF_MOVES = ("attached", "forked", "executed", "freed", "running")
ADOPT = "adopt"
"""Run by the agent, as `locate` is."""
_STORAGE = "origins"
"""The map that kernels before 5.11 do not have."""
_RING_BYTES = 256 << 10
_VERDICTS = 65536
"""Entries of the map of verdicts."""


class ContainerPrograms:
    """The loaded object, with nothing attached, and the map of verdicts, which gadgets share. Raises AgentError."""

    def __init__(self) -> None:
        self.why_no_moves = ""
        """why the programs of moves are missing, when they are"""
        try:
            self.verdicts = HashMap("gadget_verdicts", _VERDICTS)
            self.object = self._load_most()
        except Failure as failure:
            raise refusal.refused("the program that follows containers", failure) from None

    def close(self) -> None:
        """Detaches and frees everything."""
        self.object.close()
        self.verdicts.close()

    def _load_most(self) -> BpfObject:
        try:
            return self._load((*OF_CGROUPS, LOCATE, *OF_MOVES, ADOPT))
        except Failure as failure:
            self.why_no_moves = refusal.reason(failure)[0]
        return self._load((*OF_CGROUPS, LOCATE))

    def _load(self, programs: tuple[str, ...]) -> BpfObject:
        def prepare(object: BpfObject) -> None:
            if missing := {*programs} - {*object.program_names}:
                what = f"containers.bpf.o was built for another version: it lacks {', '.join(sorted(missing))}"
                raise AgentError(what, "build the BPF objects again")
            object.reuse({"gadget_containers": self.verdicts.fd})
            object.required_map("gadget_events").resize(_RING_BYTES)
            object.required_map("gadget_cpus").resize(libbpf.load().call("libbpf_num_possible_cpus"))
            if ADOPT not in programs:
                object.required_map(_STORAGE).leave_out()

        return own_object("containers", programs, prepare)


# Which cgroups are made and removed, and the depth of the agent's PID namespace.
#
# A container's name has to be known before its first event, so no change may be missed or delayed; the ring is read
# like those of gadgets.

_RECORD = struct.Struct("<IIQQII256s")  # ring buffer head, struct cgroup_change


class CgroupChange(NamedTuple):
    """A cgroup was made or removed by process `pid`, which is 0 if it is not visible here. `name`: the directory's."""

    cgroup: int
    parent: int
    pid: int
    made: bool
    name: str


class CgroupWatcher:
    """Follows all cgroups v2, from the creation of this object on. `object` is ContainerPrograms' object. Raises
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
        """True if there was no change since read()."""
        return self._ring.is_quiet

    def settle(self) -> bool:
        """True if all changes before this call can now be read."""
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


# Processes that left their container's cgroup, which are attributed to the container.
#
# The kernel remembers moves from the creation of this object on. Processes that left earlier are found by their PID
# or mount namespace, if the container's first process has its own. The traps: a tool of the node may also enter a
# container's mount namespace, so a mount namespace alone is accepted only for pods that share the node's PID
# namespace. The runtime enters a new container's cgroup before it makes namespaces for it, so it still has the
# node's. And the node's namespaces are not always those of process 1: a node may be a container itself, with pods
# that share its namespaces.

ELSEWHERE = 1 << 63
"""GADGET_ELSEWHERE: a bit in a container's cgroup id, in records about a process that is not in that cgroup."""
_MAPS = ("gadget_moved", "gadget_moved_counts", "gadget_runtimes")
_MAKING_NS = 10 * 10**9
"""Longer than a runtime takes to make a container, even on a busy node."""
_FOUND = struct.Struct("<QQIIIIII")
_ADOPTED, _MOVED, _COUNTS = struct.Struct("<QQII"), struct.Struct("<QQ"), struct.Struct("<QQ")


class MovedProcess(NamedTuple):
    """struct process_found: an existing process. `container` is the id of its container's own cgroup, or 0."""

    started: int
    container: int
    tgid: int
    level: int
    pid_namespace: int
    mount_namespace: int
    mount_namespace_above: int
    pid_namespace_above: int

    @property
    def has_own_pids(self) -> bool:
        """True if its PID namespace was made for it."""
        return self.pid_namespace != self.pid_namespace_above


class MovedProcesses:
    """Without task storage (Linux 5.11), such processes are not found, and the first warning says so. Does not close
    the object of `programs`."""

    def __init__(self, programs: ContainerPrograms, pid_level: int) -> None:
        self._warnings: list[str] = []
        self.maps: dict[str, int] = {}
        """by name, shared by gadgets and policies"""
        self._pid_level = pid_level
        self._has_lost = False
        self._object: BpfObject | None = None
        """None: the kernel does not remember moves"""
        why = programs.why_no_moves
        try:
            for program in () if why else OF_MOVES:
                programs.object.attach(program)
        except Failure as failure:
            why = refusal.reason(failure)[0]
        if why:
            self._warnings.append(f"a process that leaves its container's cgroup is attributed to the node: {why}")
            return
        self._object = programs.object
        self.maps = {name: self._object.required_map(name).fd for name in _MAPS}

    def take_warnings(self) -> list[str]:
        """Returns warnings since the last call."""
        found, self._warnings = self._warnings, []
        return found

    def adopt_existing(self, node_namespace: int) -> None:
        """Finds processes that left earlier. Call it when containers are known. `node_namespace` is the inode of the
        node's mount namespace."""
        if self._object is None:
            return
        processes = [MovedProcess(*found) for found in _FOUND.iter_unpack(self._object.iterate("running"))]
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        for process, container in elsewhere(processes, self._pid_level, node_namespace, now):
            adopted = _ADOPTED.pack(process.started, container, process.tgid, 0)
            self._object.required_map("adopted").put(bytes(4), adopted)
            self._object.run(ADOPT)

    def origins(self) -> set[int]:
        """Returns the cgroups of containers that have processes elsewhere."""
        if self._object is None:
            return set()
        counts = self._object.required_map("gadget_moved_counts").get(bytes(4))
        number, lost = _COUNTS.unpack(counts) if counts else (0, 0)
        if lost and not self._has_lost:
            self._has_lost = True
            self._warnings.append(
                f"{lost} processes that left their container's cgroup are attributed to the node: too many to track"
            )
        if not number:
            return set()
        table = self._object.required_map("gadget_moved")
        found = (table.get(key) for key in list(table.keys()))
        return {_MOVED.unpack(value)[0] & ~ELSEWHERE for value in found if value}


def _may_be_runtime(process: MovedProcess, now: int) -> bool:
    """True if it may be the runtime, before it makes the container's namespaces: it still has its parent's."""
    same = not process.has_own_pids and process.mount_namespace == process.mount_namespace_above
    return same and now - process.started < _MAKING_NS


def elsewhere(
    processes: Iterable[MovedProcess], pid_level: int, node_namespace: int, now: int
) -> list[tuple[MovedProcess, int]]:
    """Returns processes outside of all containers' cgroups that are in a container's namespaces, with that container's
    cgroup. `now` is the time since boot, in nanoseconds."""
    first: dict[int, MovedProcess] = {}
    outside = []
    for process in processes:
        if not process.container:
            outside.append(process)
        elif _may_be_runtime(process, now):
            continue
        elif process.container not in first or process.started < first[process.container].started:
            first[process.container] = process
    nodes = {node_namespace, *(one.mount_namespace_above for one in first.values() if one.has_own_pids)}
    by_mount = {one.mount_namespace: one for one in first.values() if one.mount_namespace not in nodes}
    by_pid = {one.pid_namespace: one for one in first.values() if one.level > pid_level and one.has_own_pids}
    found = []
    for process in outside:
        same = by_mount.get(process.mount_namespace)
        if same is None or same.pid_namespace != process.pid_namespace:
            same = by_pid.get(process.pid_namespace)
        if same is not None:
            found.append((process, same.container))
    return found
