"""Rows that the agent itself reads from the node, because no BPF program can: mounts, usage of cgroups, BPF programs.

A gadget's YAML names such a sampler under `sampler:`, and RUN gives the offset of each field in the record, so that its
rows become records like those of BPF programs. A sampler yields rows as dicts by field; missing numbers are 0, and
missing texts are absent. A text's offset has 16 bits and its length 15, so longer texts are truncated and marked as
truncated.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.ring import framed
from kubectl_gadget.agent.containers.tracking import Containers
from kubectl_gadget.agent.host import cgroups, procfs
from kubectl_gadget.agent.host.cgroups import parse_mountinfo
from kubectl_gadget.errors import AgentError, FrameError
from kubectl_gadget.wire.client_messages import GadgetSpec, Layout

Row = Mapping[str, int | bytes]
"""Values by field: numbers, or bytes for texts and arrays."""

UNKNOWN = 0xFFFF_FFFF_FFFF_FFFF
"""For a sum, a duration or a number of bytes: not available here."""

_CUT = 0x8000
_MOST_BYTES = 0x7FFF
_ROWS = 1024
"""Rows in one piece."""
_TEXT = struct.Struct("<HH")


class Sampler:
    """Reads the node during a session. Raises AgentError when it cannot work here."""

    def __init__(self, containers: Containers) -> None:
        self.warnings: list[str] = []
        self._containers = containers
        self._root = cgroups.find_root()

    def rows(self) -> Iterator[Row]:
        """Yields the present state, or, for totals, the changes since the last call."""
        raise NotImplementedError

    def close(self) -> None:
        """Frees what the sampler holds; most hold nothing."""


class RowPacker:
    """Packs rows into records. Raises FrameError when `layout` has fields outside of the record."""

    def __init__(self, layout: Layout) -> None:
        stops = [offset + size for offset, size in layout.fields.values() if offset >= 0 and size >= 0]
        if len(stops) < len(layout.fields) or not max(stops, default=0) <= layout.size <= _MOST_BYTES:
            raise FrameError(f"RUN: `layout` has fields outside of its {layout.size} bytes")
        if unknown := set(layout.texts) - layout.fields.keys():
            raise FrameError(f"RUN: `layout` names texts that are not fields: {', '.join(sorted(unknown))}")
        self.size = layout.size
        self._fields = layout.fields
        self._texts = layout.texts

    def pack(self, row: Row, head: bytes = b"") -> bytes:
        """Returns one record, starting with `head`, as ring buffer bytes."""
        record = bytearray(self.size)
        record[: len(head)] = head
        for name in self._texts:
            _TEXT.pack_into(record, self._fields[name][0], 0, 1)
        for name, value in row.items():
            offset, size = self._fields[name]
            if name in self._texts:
                assert isinstance(value, bytes)
                length = min(len(value), _MOST_BYTES, 0xFFFF - len(record))
                _TEXT.pack_into(record, offset, len(record), length | (_CUT if length < len(value) else 0))
                record += value[:length]
            elif isinstance(value, bytes):
                record[offset : offset + size] = value[:size].ljust(size, b"\0")
            else:
                record[offset : offset + size] = value.to_bytes(size, "little")
        return framed(record)


# The mounts in each mount namespace of the wanted containers, from /proc/PID/mountinfo.
#
# One process represents each namespace; of a namespace that host and container share, it is a process of the
# container. The file shows what that process can see, so a mount outside of its root is missing, and a removed one is
# `//deleted`.


class Mounts(Sampler):
    """The sampler `mounts`."""

    def rows(self) -> Iterator[Row]:
        """Yields a row for each mount, once for each namespace."""
        unread = 0
        for cgroup, pid, namespace in _mount_namespaces(self._containers):
            if not namespace.name:
                unread += 1
                continue
            try:
                with open(f"/proc/{pid}/mountinfo", "rb") as file:
                    data = file.read()
            except PermissionError:
                unread += 1
            except OSError:
                pass  # it has ended
            else:
                namespace.is_shown = True
                yield from _rows_of_mounts(cgroup, pid, namespace.name, data)
        if unread:
            self.warnings.append(f"the mounts of {unread} processes could not be read (this needs CAP_SYS_PTRACE)")


class _MountNamespace:
    """One that was found. Further processes of it are tried until one is shown. Without a name, the process may not be
    accessed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_shown = False


def _mount_namespaces(containers: Containers) -> Iterator[tuple[int, int, _MountNamespace]]:
    """Yields cgroup and PID of processes in each mount namespace of the wanted containers."""
    seen: dict[str, _MountNamespace] = {}
    places = {cgroup: place for place, (cgroup, _) in enumerate(containers.wanted())}
    found = containers.processes().items()
    for _, pid, cgroup in sorted((places[cgroup], pid, cgroup) for pid, cgroup in found if cgroup in places):
        try:
            name = os.readlink(f"/proc/{pid}/ns/mnt")
        except PermissionError:
            yield cgroup, pid, _MountNamespace("")
            continue
        except OSError:
            continue  # it has ended
        namespace = seen.setdefault(name, _MountNamespace(name))
        if not namespace.is_shown:
            yield cgroup, pid, namespace


def _rows_of_mounts(cgroup: int, pid: int, namespace: str, data: bytes) -> Iterator[Row]:
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


# The resolver configuration in each mount namespace of the wanted containers: /etc/resolv.conf, resolv.conf(5).
#
# A container may have anything at this path. The file is opened like all files of containers (host/foreign_files.py),
# never waited for, and read up to a limit.

_RESOLV_CONF = "/etc/resolv.conf"
_MOST_CONFIGURATION = 64 << 10
_DEFAULT_NDOTS, _MOST_NDOTS = 1, 15
"""As in glibc, whose RES_MAXNDOTS caps the value."""


class Resolvers(Sampler):
    """The sampler `resolvers`."""

    def rows(self) -> Iterator[Row]:
        """Yields a row for each namespace."""
        unread = 0
        for cgroup, pid, namespace in _mount_namespaces(self._containers):
            if not namespace.name:
                unread += 1
                continue
            try:
                found: Row = read_resolv_conf(_configuration(pid))
            except PermissionError:
                unread += 1
                continue
            except OSError as error:
                if not procfs.link(f"/proc/{pid}/root"):
                    continue  # it has ended
                found = {"errno": error.errno or 0, "ndots": UNKNOWN}
            namespace.is_shown = True
            yield {"cgroup": cgroup, **procfs.record_head(pid), **found}
        if unread:
            self.warnings.append(f"the files of {unread} processes could not be read (this needs CAP_SYS_PTRACE)")


def _configuration(pid: int) -> bytes:
    from kubectl_gadget.agent.host.foreign_files import open_inside  # not needed in most sessions

    with open(open_inside(pid, _RESOLV_CONF), "rb") as file:
        return file.read(_MOST_CONFIGURATION)


def read_resolv_conf(data: bytes) -> dict[str, int | bytes]:
    """Returns the fields of a row. Of several lists of domains, the last one counts; options add up."""
    servers: list[bytes] = []
    search: list[bytes] = []
    options: list[bytes] = []
    for line in data.replace(b"\0", b"").split(b"\n"):
        key, *words = line.split() or [b""]
        if key == b"nameserver":
            servers += words[:1]
        elif key in (b"search", b"domain"):
            search = words
        elif key == b"options":
            options += words
    ndots = [word[6:] for word in options if word.startswith(b"ndots:") and word[6:].isdigit()]
    lists = {"nameservers": servers, "search": search, "options": options}
    return {
        **{name: b"".join(word + b"\0" for word in words) for name, words in lists.items()},
        "ndots": min(int(ndots[-1][:9]), _MOST_NDOTS) if ndots else _DEFAULT_NDOTS,
        "errno": 0,
    }


# Resource usage of containers, from the files of their cgroups (version 2): cpu.stat, memory.current, io.stat, …
#
# A file exists only where its controller is enabled, or the kernel has PSI; without it the value is unknown, and not 0.
# Counts start when the cgroup is made, so cgroups that existed at the start are counted from the first reading.


class ContainerUsage(NamedTuple):
    """None: unknown. Times in ns, sizes in bytes; all but `memory` and `processes` since the cgroup was made."""

    cpu_time: int | None
    throttled: int | None
    cpu_stalled: int | None
    memory_stalled: int | None
    io_stalled: int | None
    major_faults: int | None
    read_bytes: int | None
    written_bytes: int | None
    memory: int | None
    processes: int | None


_CONTROLLERS = {
    "cpu": "throttling by CPU limits",
    "memory": "memory and major faults",
    "io": "disk bytes",
    "pids": "the number of processes",
}
"""The data that is unknown without each of them."""
_NOTHING = ContainerUsage(0, 0, 0, 0, 0, 0, 0, 0, None, None)


def read_usage(cgroup: str) -> ContainerUsage | None:
    """Reads the cgroup in this folder; None when it is gone."""
    if not os.path.isdir(cgroup):
        return None
    cpu = _pairs(_read(f"{cgroup}/cpu.stat"))
    memory = _pairs(_read(f"{cgroup}/memory.stat"))
    disks = _read(f"{cgroup}/io.stat")
    return ContainerUsage(
        cpu_time=_nanoseconds(cpu.get("usage_usec")),
        throttled=_nanoseconds(cpu.get("throttled_usec")),
        cpu_stalled=_stalled(_read(f"{cgroup}/cpu.pressure")),
        memory_stalled=_stalled(_read(f"{cgroup}/memory.pressure")),
        io_stalled=_stalled(_read(f"{cgroup}/io.pressure")),
        major_faults=memory.get("pgmajfault"),
        read_bytes=_over_disks(disks, "rbytes"),
        written_bytes=_over_disks(disks, "wbytes"),
        memory=_number(_read(f"{cgroup}/memory.current")),
        processes=_number(_read(f"{cgroup}/pids.current")),
    )


def unknown_counts(root: str) -> Iterator[str]:
    """Yields messages about what this node's cgroups, whose tree is mounted at `root`, do not count."""
    enabled = (_read(f"{root}/cgroup.controllers") or "").split()
    if absent := [name for name in _CONTROLLERS if name not in enabled]:
        what = ", ".join(_CONTROLLERS[name] for name in absent)
        yield (
            f"not known on this node: {what}; its cgroup v2 hierarchy lacks the controllers {', '.join(absent)} "
            "(try: boot it with systemd.unified_cgroup_hierarchy=1)"
        )
    if _read(f"{root}/cpu.pressure") is None and _read("/proc/pressure/cpu") is None:
        what = "how long containers wait for CPU, memory and disks"
        yield f"not known on this node: {what}; its kernel has no PSI (try: boot it with psi=1)"


class CgroupUsage(Sampler):
    """The sampler `cgroups`."""

    def __init__(self, containers: Containers) -> None:
        super().__init__(containers)
        self.warnings += unknown_counts(self._root)
        everything = containers.everything()
        self._old = {id for id, _ in everything}
        self._last = {id: self._usage(path) or _NOTHING for id, path in containers.wanted_containers()}

    def rows(self) -> Iterator[Row]:
        """Yields a row for each wanted container, with the usage since the last call."""
        last, self._last = self._last, {}
        for id, path in self._containers.wanted_containers():
            now = self._usage(path)
            if now is None:
                continue
            self._last[id] = now
            # A cgroup that existed at the start and is wanted only since now is counted from this reading.
            before = last.get(id, now if id in self._old else _NOTHING)
            row = {"cgroup": id, "memory": _known(now.memory), "processes": _known(now.processes)}
            for name, new, old in zip(ContainerUsage._fields[:-2], now, before, strict=False):
                row[name] = UNKNOWN if new is None else max(0, new - (old or 0))
            yield row

    def _usage(self, path: str) -> ContainerUsage | None:
        return read_usage(f"{self._root}/{path}")


def _read(path: str) -> str | None:
    """Returns None when there is no such file, or the kernel refuses reads: PSI may be turned off for a cgroup."""
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return None


def _number(text: str | None) -> int | None:
    return int(text) if text and text.strip().isdecimal() else None


def _nanoseconds(microseconds: int | None) -> int | None:
    return None if microseconds is None else 1000 * microseconds


def _pairs(text: str | None) -> dict[str, int]:
    """Parses a flat keyed file: `name number` in each line."""
    pairs = (line.split() for line in (text or "").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _stalled(text: str | None) -> int | None:
    """Returns the nanoseconds that some task waited, from `some avg10=0.00 avg60=0.00 avg300=0.00 total=MICROS`."""
    for line in (text or "").splitlines():
        kind, *fields = line.split()
        if kind == "some":
            return _nanoseconds(_number(dict(field.split("=") for field in fields).get("total")))
    return None


def _over_disks(text: str | None, name: str) -> int | None:
    """Returns the sum over devices, from lines like `8:0 rbytes=4096 wbytes=0 …`. A device without a line was not used
    by the cgroup."""
    if text is None:
        return None
    words = (word.partition("=") for line in text.splitlines() for word in line.split()[1:])
    return sum(int(value) for key, _, value in words if key == name and value.isdecimal())


def _known(number: int | None) -> int:
    return UNKNOWN if number is None else number


# Run counts and run times of the node's BPF programs, and which processes hold them: from bpf(2) and
# /proc/PID/fdinfo.
#
# The kernel counts while the file descriptor of BPF_ENABLE_STATS is open (Linux 5.8). Counts of a program start when it
# was loaded or counting was first enabled, so programs that existed at the start are counted from the first reading.

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
    """The kernel's report about a program. Times in ns; `loaded` is the time since boot."""

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
    """Reads bpf(2)'s tables of programs, links and maps. Skips objects that have disappeared. Raises
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


# The sampler of a gadget.

_CLASSES = {"mounts": Mounts, "resolvers": Resolvers, "bpf_programs": BpfPrograms, "cgroups": CgroupUsage}


class Sampled:
    """The rows of the sampler that `spec` names, as records, for a gadget's answer; empty when it names no sampler.
    Raises AgentError and FrameError."""

    def __init__(self, spec: GadgetSpec, containers: Containers, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._sampler: Sampler | None = None
        if not spec.sampler:
            return
        if spec.layout is None:
            raise FrameError(f"RUN: {spec.name} has a `sampler` without a `layout`")
        if spec.sampler not in _CLASSES:
            raise AgentError(
                f"this agent has no sampler {spec.sampler!r}", "kubectl gadget deploy, which updates the agents"
            )
        self._packer = RowPacker(spec.layout)
        self._sampler = _CLASSES[spec.sampler](containers)

    def __bool__(self) -> bool:
        """True if there is a sampler."""
        return self._sampler is not None

    def records(self, head: bytes) -> Iterator[bytes]:
        """Yields all rows, many in each piece; each record starts with `head`. Then warns about what failed."""
        if self._sampler is None:
            return
        rows = self._sampler.rows()
        while piece := b"".join(self._packer.pack(row, head) for row in islice(rows, _ROWS)):
            yield piece
        while self._sampler.warnings:
            self._warn(self._sampler.warnings.pop(0))

    def close(self) -> None:
        """Frees what the sampler holds."""
        if self._sampler:
            self._sampler.close()
