"""Names of the functions at a process's addresses: from its mappings to files, from files to symbols.

Files are opened through the process's own root, so each container uses its own. A name is given only when it is
certain: the process must still run the program that the stack belongs to, and the file must be the one that is mapped.
The trap: a process may end, run another program or load a library between stack and lookup, so mappings are kept from
earlier lookups, and read again when an address is not in them.
"""

import ctypes
import os
import re
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from kubectl_gadget.agent.elf.elf_functions import ElfFunctions, Function
from kubectl_gadget.agent.elf.elf_source import FileSource, MemorySource, open_file
from kubectl_gadget.agent.host import procfs
from kubectl_gadget.agent.host.foreign_files import open_inside, open_link
from kubectl_gadget.agent.symbols.perf_map import PerfMap

UNKNOWN = "[unknown]"
GONE = "process ended"
"""Stands in place of a file when the process has ended before the lookup."""
_MAPPING = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) ..x. ([0-9a-f]+) [0-9a-f:]+ ([0-9]+) *(.*)", re.MULTILINE)
_DELETED = " (deleted)"
_AGAIN = 1.0
"""Seconds after which mappings are read again."""
_MOST_PROCESSES = 2048
_MOST_FILES = 256
_START_STACK = 25
"""Index in /proc/PID/stat, counted after the name: the start of the initial stack."""
_VDSO_ADDRESS = 33
"""AT_SYSINFO_EHDR"""


class ResolvedFrame(NamedTuple):
    """One frame of a stack."""

    function: str
    module: str
    """the file, as its process sees it, or [vdso] and the like"""
    offset: int | None
    """from the function's start, or from the file's when the function is unknown; None: not meaningful"""


class _Mapping(NamedTuple):
    start: int
    end: int
    offset: int
    inode: int
    path: str


class _ProcessMappings:
    def __init__(self, pid: int, program: int) -> None:
        self.pid, self._program = pid, program
        self.read_at = -1.0
        self._text = 0
        """hash of /proc/PID/maps when it was last parsed"""
        self._mappings: list[_Mapping] = []
        self._starts: list[int] = []
        self.files: dict[tuple[int, str], ElfFunctions | None] = {}
        self._jit = PerfMap(pid, procfs.own_pid(pid))
        self._jit_is_read = False

    @property
    def known(self) -> bool:
        return bool(self._mappings)

    def read(self, now: float) -> None:
        """Does nothing when the process has ended or runs another program."""
        self.read_at = now
        try:
            with open(f"/proc/{self.pid}/maps", "rb") as file:
                text = file.read()
        except OSError:
            return
        if not text or start_of_stack(self.pid) != self._program:
            return
        self._jit_is_read = False
        if hash(text) == self._text:
            return
        self._text = hash(text)
        found = [
            _Mapping(int(start, 16), int(end, 16), int(offset, 16), int(inode), os.fsdecode(path))
            for start, end, offset, inode, path in _MAPPING.findall(text)
        ]
        if [mapping.path for mapping in found] != [mapping.path for mapping in self._mappings]:
            self.files.clear()
        self._mappings, self._starts = found, [mapping.start for mapping in found]

    def compiled(self, address: int) -> Function | None:
        """Returns what a just-in-time compiler reports to be there. Few processes have one, so its file is read only
        for them."""
        if not self._jit_is_read:
            self._jit_is_read = True
            self._jit.refresh()
        return self._jit.find(address)

    def mapping(self, address: int) -> _Mapping | None:
        place = bisect_right(self._starts, address) - 1
        if place >= 0 and address < self._mappings[place].end:
            return self._mappings[place]
        return None


class UserSymbols:
    """Names for all processes of the node."""

    def __init__(self) -> None:
        self._processes: OrderedDict[tuple[int, int], _ProcessMappings] = OrderedDict()
        self._files: OrderedDict[tuple[int, ...], tuple[FileSource, ElfFunctions]] = OrderedDict()
        self._vdso: ElfFunctions | None = None

    def frames(self, pid: int, program: int, addresses: Sequence[int]) -> list[ResolvedFrame]:
        """Returns one frame per address; the first is where the process was, the others are return addresses.

        `program` is the start of its stack, which shows whether it still runs the same program.
        """
        now = time.monotonic()
        process = self._process(pid, program)
        if now - process.read_at > _AGAIN:
            process.read(now)
        # A call may be the last instruction of its function.
        places = [address - (number > 0) for number, address in enumerate(addresses)]
        if process.read_at != now and any(process.mapping(place) is None for place in places):
            process.read(now)
        if not process.known:
            return [ResolvedFrame(UNKNOWN, GONE, None)]
        frames = [self._frame(process, place, number > 0) for number, place in enumerate(places)]
        # Without frame pointers, any value may be taken for an address.
        return [
            frame for frame, before in zip(frames, [None, *frames], strict=False) if frame != before or frame.module
        ]

    def close(self) -> None:
        while self._files:
            self._files.popitem()[1][0].close()

    def _process(self, pid: int, program: int) -> _ProcessMappings:
        process = self._processes.get((pid, program))
        if process is None:
            process = self._processes[pid, program] = _ProcessMappings(pid, program)
            if len(self._processes) > _MOST_PROCESSES:
                self._processes.popitem(last=False)
        self._processes.move_to_end((pid, program))
        return process

    def _frame(self, process: _ProcessMappings, address: int, is_call: bool) -> ResolvedFrame:
        mapping = process.mapping(address)
        if mapping is None:
            return ResolvedFrame(UNKNOWN, "", None)
        module = mapping.path.removesuffix(_DELETED)
        functions = self._functions_of(process, mapping)
        in_file = address - mapping.start + mapping.offset
        found: Function | None = None
        if functions is not None:
            at = functions.address_at(in_file)
            found = None if at is None else functions.find(at)
        elif not mapping.inode or module.startswith(("/memfd:", "/dev/zero", "/SYSV")):
            found = process.compiled(address)
            in_file = 0
        if found is None:
            return ResolvedFrame(UNKNOWN, module or "[anon]", in_file + is_call if in_file else None)
        return ResolvedFrame(found.name, module or "[jit]", found.offset + is_call)

    def _functions_of(self, process: _ProcessMappings, mapping: _Mapping) -> ElfFunctions | None:
        if mapping.path == "[vdso]":
            if self._vdso is None:
                self._vdso = ElfFunctions(MemorySource(own_vdso()))
            return self._vdso
        if not mapping.inode:
            return None
        key = mapping.inode, mapping.path
        if key not in process.files:
            process.files[key] = self._open(process.pid, mapping)
        return process.files[key]

    def _open(self, pid: int, mapping: _Mapping) -> ElfFunctions | None:
        path = mapping.path.removesuffix(_DELETED)
        ways: list[Callable[[], int]] = []
        if procfs.link(f"/proc/{pid}/exe") == mapping.path:
            ways.append(lambda: open_link(pid, "exe"))
        if path.startswith("/") and not path.startswith("/memfd:"):
            ways.append(lambda: open_inside(pid, path))
        # Works for deleted files as well, but only with CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN.
        ways.append(lambda: open_link(pid, f"map_files/{mapping.start:x}-{mapping.end:x}"))
        for way in ways:
            if (source := open_file(way)) is None:
                continue
            status = os.fstat(source.fd)
            if status.st_ino != mapping.inode:
                source.close()
                continue
            return self._cached(source, (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size))
        return None

    def _cached(self, source: FileSource, key: tuple[int, ...]) -> ElfFunctions | None:
        if key in self._files:
            source.close()
            self._files.move_to_end(key)
            return self._files[key][1]
        functions = ElfFunctions(source)
        if not functions.is_elf:
            source.close()
            return None
        self._files[key] = source, functions
        if len(self._files) > _MOST_FILES:
            # Processes may still use its symbols; their names can no longer be read, and are unknown.
            self._files.popitem(last=False)[1][0].close()
        return functions


def start_of_stack(pid: int) -> int:
    """Returns the start of the stack of the process's program; 0 when it is gone or may not be accessed."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The command name, in parentheses, may contain any characters.
            return int(file.read().rpartition(b")")[2].split()[_START_STACK])
    except (OSError, ValueError, IndexError):
        return 0


def own_vdso() -> bytes:
    """Returns the kernel's code in every process (vDSO), read from this one."""
    getauxval = ctypes.CDLL(None).getauxval
    getauxval.restype, getauxval.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    address = getauxval(_VDSO_ADDRESS)
    try:
        with open("/proc/self/maps", "rb") as file:
            for start, end, *_ in re.findall(rb"([0-9a-f]+)-([0-9a-f]+) .*\[vdso\]", file.read()):
                if int(start, 16) == address:
                    return ctypes.string_at(address, int(end, 16) - address)
    except OSError:
        pass
    return b""
