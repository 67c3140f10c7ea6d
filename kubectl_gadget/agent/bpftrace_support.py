"""bpftrace on this node: whether it works here, and the map that limits its probes to chosen pods.

The client adds a test of a map to each probe (other_tools/bpftrace_program.py); the agent finds the map in the
running process and fills it from outside, as pods come and go. The trap: maps of other processes may have the same
name, so it is looked up among the process's own file descriptors.
"""

import itertools
import os
import re
import shutil
import signal
import struct
import subprocess
import tempfile
from functools import cache
from typing import Any

from kubectl_gadget.agent.bpf import libbpf
from kubectl_gadget.agent.bpf.libbpf import Failure
from kubectl_gadget.agent.bpf.maps import OpenMap
from kubectl_gadget.agent.containers.identity import ContainerIdentity
from kubectl_gadget.agent.containers.tracking import Containers
from kubectl_gadget.agent.host import procfs, this_node
from kubectl_gadget.agent.kernel.refusal import capabilities
from kubectl_gadget.wire.client_messages import FilterSpec

_PROGRAM_HEADERS, _HEADER_SIZES = 32, 54
"""Offsets in a 64-bit ELF header: of e_phoff, and of e_phentsize and e_phnum."""
_FILE = "program.bt"
_RELRO = 0x6474E552
_BTF = "/sys/kernel/btf/vmlinux"
_SHELL = "/bin/sh"
_IRRELEVANT = re.compile(r"couldn't set RLIMIT_MEMLOCK")
"""Since Linux 5.11, a BPF program's memory is charged to its cgroup."""
_MAP_NAME = re.compile(r"\w{1,11}", re.ASCII)

Problem = dict[str, str]


def problems() -> list[Problem]:
    """Returns what keeps bpftrace from running here."""
    found = []
    if (path := shutil.which("bpftrace")) is None:
        remedy = "apt-get install bpftrace on it, or the agents' image whose tag ends in -bcc"
        found.append({"what": "bpftrace is not installed", "why": "it is not on the PATH", "try": remedy})
    elif (why := _crash(path)) and not _runs_without_relro():
        remedy = "another version of bpftrace and of the LLVM that it uses"
        found.append({"what": "bpftrace cannot start", "why": why, "try": remedy})
    if os.geteuid() != 0 or "SYS_ADMIN" not in capabilities():
        why = "it needs root and CAP_SYS_ADMIN"
        found.append({"what": "bpftrace cannot load programs", "why": why, "try": "sudo, or --privileged"})
    if not os.path.exists(_SHELL):
        why = f"it finds the compiler's headers with a shell, and crashes without {_SHELL}"
        found.append({"what": "bpftrace needs a shell", "why": why, "try": "an agents' image of this version"})
    if why := _without_tracefs():
        found.append(
            {
                "what": "tracefs is not mounted",
                "why": why,
                "try": f"mount -t tracefs tracefs {this_node.TRACEFS_FOLDERS[0]}",
            }
        )
    if not os.path.exists(_BTF):
        why = f"there is no {_BTF}, from which bpftrace reads the kernel's types"
        found.append({"what": "the kernel has no BTF", "why": why, "try": "a kernel with CONFIG_DEBUG_INFO_BTF"})
    return found


def executable(folder: str) -> str:
    """Returns the path of bpftrace, or of a copy in `folder` that can start where the installed one cannot."""
    path = shutil.which("bpftrace") or "bpftrace"
    if not _crash(path):
        return path
    copy = f"{folder}/bpftrace"
    with open(path, "rb") as source, open(copy, "wb") as target:
        target.write(without_relro(source.read()))
    os.chmod(copy, 0o700)
    return copy


def _without_tracefs() -> str:
    """Returns why tracepoints cannot be looked up, or "". In our pods it mounts tracefs, visible in this pod only."""
    if this_node.tracefs():
        return ""
    if not this_node.pod_uid():
        return f"neither {' nor '.join(this_node.TRACEFS_FOLDERS)} has the kernel's events"
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    if library.mount(b"tracefs", this_node.TRACEFS_FOLDERS[0].encode(), b"tracefs", 0, None):
        return os.strerror(ctypes.get_errno())
    return ""


def _runs_without_relro() -> bool:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        return not _crash(executable(folder))


@cache
def _crash(path: str) -> str:
    """Returns how it fails at its start, such as by a signal; "" when it starts."""
    try:
        code = subprocess.run([path, "--version"], capture_output=True, check=False).returncode
    except OSError as error:
        return str(error)
    return f"signal {signal.Signals(-code).name}, before it did anything" if code < 0 else ""


def without_relro(elf: bytes) -> bytes:
    """Returns the program without the header that makes relocated data read-only.

    bpftrace has copies of LLVM's constants there, and some builds of libLLVM write to them at start: SIGSEGV before
    main().
    """
    data = bytearray(elf)
    (start,) = struct.unpack_from("<Q", data, _PROGRAM_HEADERS)
    size, count = struct.unpack_from("<HH", data, _HEADER_SIZES)
    for offset in range(start, start + size * count, size):
        if struct.unpack_from("<I", data, offset)[0] == _RELRO:
            struct.pack_into("<I", data, offset, 0)
    return bytes(data)


def command(request: dict[str, Any], folder: str) -> list[str]:
    """Returns the command line. Writes the program to a file in the working directory `folder`; errors name it."""
    with open(f"{folder}/{_FILE}", "w", encoding="utf-8") as file:
        file.write(str(request["bpftrace"]))
    arguments = [str(item) for item in request.get("arguments") or []]
    return [executable(folder), "-q", "-B", "line", "--", _FILE, *arguments]


class ChosenPods:
    """Fills the map of a bpftrace process with the cgroups of the wanted containers. Raises AgentError."""

    def __init__(self, name: str, filter: FilterSpec) -> None:
        self._name = name if _MAP_NAME.fullmatch(name) else ""
        self._wanted: dict[int, list[int]] = {}
        """the cgroup of each wanted container, with some of those below it"""
        self._map: OpenMap | None = None
        self._is_full = False
        self.warnings: list[str] = []
        self._containers = Containers()
        self.fd = self._containers.fd
        """readable when cgroups were made or removed"""
        self._containers.set_filter(filter)
        self._containers.follow(self)
        self.turn()

    def set_filter(self, filter: FilterSpec) -> None:
        """Selects other pods from now on."""
        self._containers.set_filter(filter)

    def turn(self) -> None:
        """Processes changes of cgroups."""
        self._containers.drain()
        self._containers.take_changes()
        self._containers.take_removed()

    def set_owner(self, cgroup: int, container: ContainerIdentity | None, wanted: bool) -> None:
        if container is not None and wanted:
            # The program itself adds cgroups that the container makes later.
            self._wanted[cgroup] = [cgroup, *self._containers.some_below(cgroup)]
            for each in self._wanted[cgroup]:
                self._put(each)
        else:
            self.forget(cgroup)

    def forget(self, cgroup: int) -> None:
        for each in self._wanted.pop(cgroup, ()):
            if self._map is not None:
                self._map.remove(each.to_bytes(8, "little"))

    def attach(self, pid: int) -> bool:
        """Finds the map of the process and fills it. Returns False while the process does not have it yet."""
        if self._map is None and (found := find_map(pid, self._name)) is not None:
            self._map = found
            for each in itertools.chain.from_iterable(self._wanted.values()):
                self._put(each)
        return self._map is not None

    def close(self) -> None:
        if self._map is not None:
            self._map.close()
        self._containers.close()

    def _put(self, cgroup: int) -> None:
        if self._map is None:
            return
        try:
            self._map.put(cgroup.to_bytes(8, "little"), (1).to_bytes(self._map.value_size, "little"))
        except Failure:
            if not self._is_full:
                self._is_full = True
                what = f"there are more cgroups than the {self._map.entries} that a bpftrace map can hold"
                remedy = "fewer pods, or config = { max_map_keys = N } in the program"
                self.warnings.append(f"{what}, so some containers are missing (try: {remedy})")


def is_irrelevant(line: str) -> bool:
    """Whether a line on bpftrace's standard error is not worth showing."""
    return bool(_IRRELEVANT.search(line))


def find_map(pid: int, name: str) -> OpenMap | None:
    """Returns the map @name of a bpftrace process, or None."""
    opened = (_open_if(id, name) for _, id in procfs.bpf_objects(pid, b"map_id"))
    return next(filter(None, opened), None)


def _open_if(id: int, name: str) -> OpenMap | None:
    """Opens a map by its id, if it has this name."""
    try:
        found = OpenMap(libbpf.load().call("bpf_map_get_fd_by_id", id))
    except Failure:
        return None
    if name and found.name in (f"AT_{name}", name) and found.key_size == 8:
        return found
    found.close()
    return None
