"""Run counts and run times of the node's BPF programs, and which processes hold them: from bpf(2) and /proc/PID/fdinfo.

The kernel counts while the file descriptor of BPF_ENABLE_STATS is open (Linux 5.8). The trap: its counts start when the
program was loaded or counting was first enabled, so programs that existed at the start are counted from the first
reading.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from kubectl_gadget.agent.answers.samplers import Row, Sampler
from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.containers.tracking import Containers
from kubectl_gadget.agent.host import procfs
from kubectl_gadget.errors import AgentError

_RUN_TIME = 0
"""BPF_STATS_RUN_TIME."""
_OURS = {b"gadget_cpus", b"gadget_containe"}
"""Maps used by programs of this project, by their names in the kernel."""
_MOST_MAPS = 64
_LINK_TYPES = (
    *("", "raw_tracepoint", "tracing", "cgroup", "iter", "netns", "xdp", "perf_event", "kprobe_multi", "struct_ops"),
    *("netfilter", "tcx", "uprobe_multi", "netkit", "sockmap"),
)
_RAW_TRACEPOINT = 1
_INFO_BYTES = 256

# Of struct bpf_prog_info, up to `recursion_misses`; only the members that are used are named below.
_PROGRAM = struct.Struct("<II8sIIQQQIIQ16s112xQQQ")
_NAME_OF_MAP = slice(24, 40)
"""In struct bpf_map_info."""


class LoadedProgram(NamedTuple):
    """What the kernel reports about a program. Times in ns; `loaded` is the time since boot."""

    id: int
    type: int
    loaded: int
    uid: int
    name: bytes
    run_time: int
    runs: int
    misses: int
    maps: tuple[int, ...]


class KernelObjects:
    """Reads bpf(2)'s tables of programs, links and maps. Skips objects that disappear meanwhile. Raises
    libbpf.Failure."""

    def __init__(self) -> None:
        self._lib = libbpf.load()

    def start_counting(self) -> int:
        """Makes the kernel count until the returned file descriptor is closed."""
        return int(self._lib.call("bpf_enable_stats", _RUN_TIME))

    def programs(self) -> Iterator[LoadedProgram]:
        """Yields all loaded programs."""
        for id in self._ids("prog"):
            maps = (ctypes.c_uint32 * _MOST_MAPS)()
            # nr_map_ids and map_ids request the ids of the program's maps.
            request = bytearray(_INFO_BYTES)
            struct.pack_into("<IQ", request, 52, _MOST_MAPS, ctypes.addressof(maps))
            info = self._info("prog", id, request)
            if info is None:
                continue
            fields = _PROGRAM.unpack_from(info)
            kind, _, _, _, _, _, _, loaded, uid, count, _, name, run_time, runs, misses = fields
            used = tuple(maps[: min(count, _MOST_MAPS)])
            yield LoadedProgram(id, kind, loaded, uid, name.rstrip(b"\0"), run_time, runs, misses, used)

    def map_name(self, id: int) -> bytes:
        """Returns a map's name, at most 15 characters; empty when the map is gone."""
        info = self._info("map", id, bytearray(_INFO_BYTES))
        return info[_NAME_OF_MAP].rstrip(b"\0") if info else b""

    def attached(self) -> dict[int, bytes]:
        """Returns how programs are attached, by program id, for those attached through links."""
        found = {}
        for id in self._ids("link"):
            name = ctypes.create_string_buffer(64)
            request = bytearray(_INFO_BYTES)
            if info := self._info("link", id, request):
                kind, _, program = struct.unpack_from("<III", info)
                if kind == _RAW_TRACEPOINT:
                    struct.pack_into("<QI", request, 16, ctypes.addressof(name), len(name))
                    self._info("link", id, request)
                text = _LINK_TYPES[kind] if kind < len(_LINK_TYPES) else str(kind)
                found[program] = f"{text} {name.value.decode(errors='replace')}".rstrip().encode()
        return found

    def _ids(self, what: str) -> Iterator[int]:
        id = ctypes.c_uint32(0)
        while True:
            try:
                self._lib.call(f"bpf_{what}_get_next_id", id.value, ctypes.byref(id))
            except Failure as failure:
                if failure.errno != errno.ENOENT:
                    raise
                return
            yield id.value

    def _info(self, what: str, id: int, request: bytearray) -> bytes | None:
        """Returns struct bpf_WHAT_info; None when the object is gone. `request` is the struct before the call."""
        try:
            fd = self._lib.call(f"bpf_{what}_get_fd_by_id", id)
        except Failure as failure:
            if failure.errno != errno.ENOENT:
                raise
            return None
        try:
            info = ctypes.create_string_buffer(bytes(request), len(request))
            size = ctypes.c_uint32(len(request))
            self._lib.call("bpf_obj_get_info_by_fd", fd, info, ctypes.byref(size))
            return info.raw
        finally:
            os.close(fd)


class BpfPrograms(Sampler):
    """The sampler `bpf_programs`."""

    def __init__(self, containers: Containers) -> None:
        super().__init__(containers)
        self._kernel = kernel = KernelObjects()
        self._top = os.stat(self._root).st_ino
        try:
            self._counting = kernel.start_counting()
            self._last = {program.id: program for program in kernel.programs()}
        except Failure as failure:
            if failure.errno not in (errno.EPERM, errno.EACCES):
                raise
            what = "this agent may not list all BPF programs: that needs CAP_SYS_ADMIN"
            raise AgentError(what, "--privileged, or as root with --local") from None
        self._owners: dict[int, tuple[int, int]] = {}
        self._ours: set[int] = set()

    def rows(self) -> Iterator[Row]:
        """Yields a row for each program of a wanted container, and for each of ours, with counts since the last
        call."""
        found = {program.id: program for program in self._kernel.programs()}
        if found.keys() - self._owners.keys():
            self._owners = self._find_owners(found)
            self._ours = self._find_ours(found)
        attached = self._kernel.attached()
        wanted = {id for id, _ in self._containers.wanted()}
        last, self._last = self._last, found
        for id, now in found.items():
            cgroup, pid = self._owners[id]
            if cgroup not in wanted and id not in self._ours:
                continue
            before = last.get(id)
            yield {
                "cgroup": cgroup,
                "program_id": id,
                "runs": now.runs - (before.runs if before else 0),
                "run_time": now.run_time - (before.run_time if before else 0),
                "misses": now.misses - (before.misses if before else 0),
                "loaded": now.loaded,
                "comm": procfs.comm(pid) if pid else b"",
                "program": now.name,
                "attached": attached.get(id, b"no link"),
                "type": now.type,
                "pid": pid,
                "uid": now.uid,
                "ours": 1 if id in self._ours else 2,
            }

    def close(self) -> None:
        os.close(self._counting)

    def _find_ours(self, programs: dict[int, LoadedProgram]) -> set[int]:
        """Returns the ids of programs that use our maps, and of all other programs of the processes that hold these."""
        names = {id: map(self._kernel.map_name, program.maps) for id, program in programs.items()}
        found = {id for id, used in names.items() if not _OURS.isdisjoint(used)}
        agents = {self._owners[id][1] for id in found} - {0}
        return {id for id in programs if id in found or self._owners[id][1] in agents}

    def _find_owners(self, programs: dict[int, LoadedProgram]) -> dict[int, tuple[int, int]]:
        """Returns cgroup and PID of the process that holds each program; the root cgroup and 0 when no process does."""
        owners = dict.fromkeys(programs, (self._top, 0))
        for pid, cgroup in self._containers.processes().items():
            for _, id in procfs.bpf_objects(pid, b"prog_id"):
                if id in owners and not owners[id][1]:
                    owners[id] = cgroup, pid
        return owners
