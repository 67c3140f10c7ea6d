"""Names of the functions at a process's addresses: from its mappings to files, from files to symbols.

Files are opened through the process's own root, so each container uses its own. A name is given only if it is
certain: the process must still run the program that the stack belongs to, and the file must be the one that is
mapped. Opening a file costs most, so processes of one mount namespace share open files; and most stacks
are new, but not their frames, so frames are kept.
"""

import ctypes
import errno
import fcntl
import math
import os
import re
import struct
import time
import weakref
from bisect import bisect_left, bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import BinaryIO, NamedTuple

from kubectl_gadget.agent.elf import ElfFile, FileSource, MemorySource, open_file
from kubectl_gadget.agent.host import procfs
from kubectl_gadget.agent.host.foreign_files import open_inside, open_link
from kubectl_gadget.agent.symbols import debug_files
from kubectl_gadget.agent.symbols.elf_functions import ElfFunctions, Function

# The executable mappings of a process: to which file, and to which offset in it, an address belongs.
#
# Linux 6.11 answers for one address (PROCMAP_QUERY), in 2 µs; on older kernels, the text of /proc/PID/maps is parsed.
# In both cases the mappings are listed once, so that they are known when the process has ended. A process may run
# another program at any time. An open maps file belongs to the memory of one program; which one is checked after
# opening.

_MAPPING = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) ..x. ([0-9a-f]+) ([0-9a-f:]+) ([0-9]+) *(.*)", re.MULTILINE)
_QUERY = struct.Struct("<9Q4I2Q")
"""struct procmap_query (linux/fs.h): size, flags, address; start, end, flags, page size, offset, inode; device's major
and minor number, sizes of name and build id; their addresses"""
_PROCMAP_QUERY = 0xC0686611
_EXECUTABLE, _OR_NEXT = 4, 16
MOST_LISTED = 64
"""Mappings that are listed before addresses in them are looked up."""
MOST_KNOWN = 4096
MOST_OPEN = 128
_START_STACK = 25
"""Index in /proc/PID/stat, counted after the name: the start of the initial stack."""
_MOST_NAME = 4096


class Mapping(NamedTuple):
    """A range of addresses; `path` is as in /proc/PID/maps."""

    start: int
    end: int
    offset: int
    device: int
    inode: int
    path: str
    is_code: bool = True


class OpenMaps:
    """The open maps files of all processes; the oldest is closed when there are too many."""

    def __init__(self, by_text: bool = False) -> None:
        self.by_text = by_text
        """True if this kernel only has the text"""
        self._opened: deque[ProcessMappings] = deque()
        self._name = ctypes.create_string_buffer(_MOST_NAME)

    def add(self, process: "ProcessMappings") -> None:
        self._opened.append(process)
        if len(self._opened) > MOST_OPEN:
            self._opened.popleft().close()

    def close(self) -> None:
        while self._opened:
            self._opened.popleft().close()

    def ask(self, file: int, address: int, flags: int) -> Mapping | None:
        """Returns the mapping at an address, or None. Raises OSError, with ESRCH when the process has ended."""
        place = ctypes.addressof(self._name)
        query = bytearray(_QUERY.pack(_QUERY.size, flags, address, 0, 0, 0, 0, 0, 0, 0, 0, _MOST_NAME, 0, place, 0))
        try:
            fcntl.ioctl(file, _PROCMAP_QUERY, query, True)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        _, _, _, start, end, bits, _, offset, inode, major, minor, length, *_ = _QUERY.unpack(query)
        if not bits & _EXECUTABLE:
            return Mapping(start, end, 0, 0, 0, "", is_code=False)
        path = os.fsdecode(ctypes.string_at(place, length - 1)) if length else ""
        return Mapping(start, end, offset, os.makedev(major, minor), inode, path)


class ProcessMappings:
    """The mappings of one program of a process; `program` is the start of its stack, which identifies it."""

    def __init__(self, pid: int, program: int, opened: OpenMaps) -> None:
        self.pid, self._program, self._opened = pid, program, opened
        self._file = -1
        self._by_text = opened.by_text
        self._is_known = False
        self._starts: list[int] = []
        self._mappings: list[Mapping] = []
        self._checked: list[float] = []
        """for each mapping, when it was looked up"""
        self._since = 0.0
        self._read_at = self._failed_at = -1.0
        self._text = 0
        """hash of the text when it was last parsed"""

    def is_known(self, now: float) -> bool:
        """True if the mappings could be read."""
        return self._is_known or (self._refresh(0, now) and self._is_known)

    def renew(self, now: float) -> None:
        """Makes later lookups read the mappings again."""
        self._since = now

    def find(self, address: int, now: float) -> Mapping | None:
        """Returns the mapping of this address; the last known one when the process has ended."""
        place = bisect_right(self._starts, address) - 1
        found: Mapping | None
        if place >= 0 and address < (found := self._mappings[place]).end:
            if self._checked[place] < self._since and self._refresh(address, now):
                found = self._at(address)
        elif self._refresh(address, now):
            found = self._at(address)
        else:
            return None
        return found

    def _at(self, address: int) -> Mapping | None:
        place = bisect_right(self._starts, address) - 1
        return self._mappings[place] if place >= 0 and address < self._mappings[place].end else None

    def close(self) -> None:
        """Closes the maps file. It is opened again when it is needed."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _refresh(self, address: int, now: float) -> bool:
        """Looks up an address. Returns False when nothing can be read any more."""
        if now == self._failed_at:
            return False
        try:
            if not self._by_text:
                self._ask(address, now)
                return True
        except OSError as error:
            self.close()
            if error.errno == errno.ESRCH:
                self._failed_at = now
                return False
            # ENOTTY: an older kernel. Other errors concern only this process: a path may be too long.
            self._by_text = True
            self._opened.by_text |= error.errno == errno.ENOTTY
        return self._read_text(now)

    def _ask(self, address: int, now: float) -> None:
        """Looks up an address by PROCMAP_QUERY. Raises OSError, with ESRCH when the program has ended."""
        if self._file < 0:
            self._open()
        if not self._is_known:
            self._is_known = True
            following: Mapping | None = Mapping(0, 0, 0, 0, 0, "")
            while following and len(self._starts) < MOST_LISTED:
                following = self._opened.ask(self._file, following.end, _EXECUTABLE | _OR_NEXT)
                if following:
                    self._replace(following.start, following.end, following, now)
        mapping = self._opened.ask(self._file, address, 0)
        if mapping:
            self._replace(mapping.start, mapping.end, mapping, now)
        else:
            self._replace(address, address + 1, None, now)

    def _open(self) -> None:
        try:
            self._file = os.open(f"/proc/{self.pid}/maps", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            raise ProcessLookupError(errno.ESRCH, "it has ended") from None
        if start_of_stack(self.pid) != self._program:
            raise ProcessLookupError(errno.ESRCH, "it runs another program")
        self._opened.add(self)

    def _replace(self, start: int, end: int, mapping: Mapping | None, now: float) -> None:
        """Replaces all mappings in this range."""
        low, high = bisect_right(self._starts, start), bisect_left(self._starts, end)
        if low and self._mappings[low - 1].end > start:
            low -= 1
        if mapping is None:
            if low == high:
                return
        elif len(self._starts) >= MOST_KNOWN:
            low, high = 0, len(self._starts)
        new = [] if mapping is None else [mapping]
        self._mappings[low:high] = new
        self._starts[low:high] = [start] * len(new)
        self._checked[low:high] = [now] * len(new)

    def _read_text(self, now: float) -> bool:
        if now == self._read_at:
            return True
        self._read_at = now
        text = procfs.read(f"/proc/{self.pid}/maps")
        if not text or start_of_stack(self.pid) != self._program:
            return False
        self._is_known = True
        if hash(text) != self._text:
            self._text = hash(text)
            self._mappings = mappings_of_text(text)
            self._starts = [mapping.start for mapping in self._mappings]
        self._checked = [now] * len(self._starts)
        return True


def mappings_of_text(text: bytes) -> list[Mapping]:
    """Returns the mappings of code in /proc/PID/maps, by address."""
    return [_of_line(*line) for line in _MAPPING.findall(text)]


def _of_line(start: bytes, end: bytes, offset: bytes, device: bytes, inode: bytes, path: bytes) -> Mapping:
    major, _, minor = device.partition(b":")
    number = os.makedev(int(major, 16), int(minor, 16))
    return Mapping(int(start, 16), int(end, 16), int(offset, 16), number, int(inode), os.fsdecode(path))


def start_of_stack(pid: int) -> int:
    """Returns the start of the stack of the process's program; 0 when it is gone or may not be accessed."""
    try:
        with open(f"/proc/{pid}/stat", "rb", 0) as file:
            # The command name, in parentheses, may contain any characters.
            return int(file.read().rpartition(b")")[2].split(None, _START_STACK + 1)[_START_STACK])
    except (OSError, ValueError, IndexError):
        return 0


# /tmp/perf-PID.map: the functions that a just-in-time compiler (Node.js, Java, .NET, Python, …) reports.
# One line per function: start and length in hexadecimal digits, and the name. The path is inside the container, which
# may be hostile: with links that lead out of it, pipes, file systems that never answer, or any number of functions. So
# it is opened by host/foreign_files.py, which opens only regular files, and only the first lines are read.

_MOST_MAP_BYTES = 64 << 20
MOST_LINES, _MOST_LINE = 400_000, 4096
"""Lines that are read, which take some 100 MB of memory, and bytes of one."""
MOST_IN_ALL = 256 << 20
"""Memory for the maps of all processes. A process may use half of what the others leave, so that none takes all."""
_PER_LINE = 200
"""Bytes of memory that a line takes beside its text."""
_maps: "weakref.WeakSet[PerfMap]" = weakref.WeakSet()


class PerfMap:
    """The map of one process; `refresh` reads the file again when it has changed."""

    def __init__(self, pid: int, own_pid: int) -> None:
        self._pid = pid
        self._path = f"tmp/perf-{own_pid}.map"
        self._seen: tuple[int, int] | None = None
        self._starts: list[int] = []
        self._functions: list[tuple[int, str]] = []
        self._bytes = 0
        _maps.add(self)

    def refresh(self) -> None:
        """Reads the file if it has changed. If it is gone or cannot be opened, the last content is kept."""
        try:
            fd = open_inside(self._pid, self._path)
        except OSError:
            return
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            if (seen := (status.st_size, status.st_mtime_ns)) == self._seen:
                return
            self._seen = seen
            self._parse(file)

    def find(self, address: int) -> Function | None:
        """Returns the function that was reported at this address."""
        place = bisect_right(self._starts, address) - 1
        if place < 0:
            return None
        length, name = self._functions[place]
        offset = address - self._starts[place]
        return Function(name, offset) if offset < length else None

    def _parse(self, file: BinaryIO) -> None:
        found: dict[int, tuple[int, str]] = {}
        others = sum(one._bytes for one in _maps if one is not self)
        room = max(0, (MOST_IN_ALL - others) // 2)
        left = _MOST_MAP_BYTES
        self._bytes = 0
        for _ in range(MOST_LINES):
            line = file.readline(min(left, _MOST_LINE))
            if not line:
                break
            left -= len(line)
            if self._bytes + len(line) + _PER_LINE > room:
                break
            self._bytes += len(line) + _PER_LINE
            parts = line.split(None, 2)
            try:
                # A later line replaces an earlier one.
                found[int(parts[0], 16)] = int(parts[1], 16), parts[2].rstrip(b"\r\n").decode(errors="replace")
            except (ValueError, IndexError):
                continue
        self._starts = sorted(found)
        self._functions = [found[start] for start in self._starts]


# The names of functions in processes

UNKNOWN = "[unknown]"
GONE = "process ended"
"""In place of a file's name, when the process has ended before the lookup."""
_DELETED = " (deleted)"
_AGAIN = 1.0
"""Seconds after which a process's mappings and the file of its just-in-time compiler are read again."""
_SHARED_SECONDS = 60.0
"""For so long, processes of a mount namespace share a file; later, its inode number may be another file's."""
_MOST_PROCESSES = 1024
MOST_FILES = 256
MOST_SYMBOLS = 4_000_000
"""Of all open files; each takes 20 bytes. A container can make any number of files."""
_MOST_FRAMES = 1 << 16
_MOST_SEEN = 4096
_LEAST_ADDRESS, _MOST_ADDRESS = 1 << 12, 1 << 56
"""The range of addresses that a process can map, on any CPU."""
_VDSO_ADDRESS = 33
"""AT_SYSINFO_EHDR"""


class ResolvedFrame(NamedTuple):
    """One frame of a stack."""

    function: str
    module: str
    """the file, as its process sees it, or [vdso] and the like"""
    offset: int | None
    """from the function's start, or from the file's when the function is unknown; None: not meaningful"""
    code: str = ""
    """of an unknown function: the file's build id, and the address in its symbol table, separated by a tab; empty: not
    known"""


_NOWHERE = ResolvedFrame(UNKNOWN, "", None)
_NO_CODE = Mapping(0, 0, 0, 0, 0, "", is_code=False)


class _File:
    """An open file with its functions; `identity` are device, inode, time of change and size. `only_in` is the mount
    namespace whose processes share it, if its names are from a file that only they see; else empty."""

    def __init__(
        self, source: FileSource, functions: ElfFunctions, identity: tuple[int, ...], only_in: str = ""
    ) -> None:
        self.source, self.functions, self.identity, self.only_in = source, functions, identity, only_in

    @property
    def is_open(self) -> bool:
        return self.source.fd >= 0

    @property
    def is_unchanged(self) -> bool:
        return self.is_open and identity_of(self.source) == self.identity

    def close(self) -> None:
        self.source.close()
        self.functions.forget()


class _Process:
    def __init__(self, pid: int, program: int, opened: OpenMaps) -> None:
        self.pid = pid
        self.mappings = ProcessMappings(pid, program, opened)
        self.files: dict[tuple[int, int, str], _File | None] = {}
        self.frames: dict[int, ResolvedFrame] = {}
        """the key is twice the address, plus 1 for a return address"""
        self.renew_at = 0.0
        self._jit: PerfMap | None = None
        self._jit_is_read = False

    def renew(self, now: float) -> None:
        """Makes later lookups read again what may have changed."""
        self.renew_at = now + _AGAIN
        self.frames.clear()
        self.mappings.renew(now)
        self._jit_is_read = False

    def compiled(self, address: int) -> Function | None:
        """Returns the function that a just-in-time compiler has reported at this address."""
        if self._jit is None:
            self._jit = PerfMap(self.pid, procfs.own_pid(self.pid))
        if not self._jit_is_read:
            self._jit_is_read = True
            self._jit.refresh()
        return self._jit.find(address)


class UserSymbols:
    """Names for all processes of the node."""

    def __init__(self) -> None:
        self._processes: OrderedDict[tuple[int, int], _Process] = OrderedDict()
        self._opened = OpenMaps()
        self._files: OrderedDict[tuple[tuple[int, ...], str], _File] = OrderedDict()
        """by identity, and `only_in`"""
        self._symbols = 0
        """of all these files"""
        self._seen: dict[tuple[str, int, int, str], tuple[float, _File]] = {}
        """by mount namespace, device, inode and path: until when the entry is valid, and the file"""
        self._frames: dict[tuple[int, int, bool, str], ResolvedFrame] = {}
        self._vdso: ElfFunctions | None = None

    def frames(self, pid: int, program: int, addresses: Sequence[int]) -> list[ResolvedFrame]:
        """Returns one frame per address; the first is the current instruction, the others are return addresses.

        Without frame pointers, any values may be taken for return addresses. So a stack ends at the first address that
        is not in code, with one unknown frame. `program` is the start of the process's stack, which shows whether it
        still runs the same program.
        """
        now = time.monotonic()
        process = self._process(pid, program)
        if now >= process.renew_at:
            process.renew(now)
        known = process.frames
        frames: list[ResolvedFrame] = []
        is_call = 0
        for address in addresses:
            place = address << 1 | is_call
            is_call = 1
            frame = known.get(place)
            if frame is None:
                frame = self._frame(process, place, now)
            if frame is _NOWHERE and frames:
                if frames[-1] is not _NOWHERE:
                    frames.append(frame)
                break
            frames.append(frame)
        return frames if process.mappings.is_known(now) else [ResolvedFrame(UNKNOWN, GONE, None)]

    def close(self) -> None:
        self._opened.close()
        while self._files:
            self._files.popitem()[1].close()

    def _process(self, pid: int, program: int) -> _Process:
        process = self._processes.get((pid, program))
        if process is None:
            process = self._processes[pid, program] = _Process(pid, program, self._opened)
            if len(self._processes) > _MOST_PROCESSES:
                self._processes.popitem(last=False)[1].mappings.close()
        self._processes.move_to_end((pid, program))
        return process

    def _frame(self, process: _Process, place: int, now: float) -> ResolvedFrame:
        """`place` is an address, and in the lowest bit, whether it is a return address."""
        is_call = bool(place & 1)
        # A call may be the last instruction of its function.
        address = (place >> 1) - is_call
        mapping = process.mappings.find(address, now) if _LEAST_ADDRESS <= address < _MOST_ADDRESS else _NO_CODE
        if mapping is None:
            return _NOWHERE  # not kept: a library may be mapped there a moment later
        frame = self._mapped_frame(process, mapping, address, is_call, now) if mapping.is_code else _NOWHERE
        process.frames[place] = frame
        return frame

    def _mapped_frame(
        self, process: _Process, mapping: Mapping, address: int, is_call: bool, now: float
    ) -> ResolvedFrame:
        functions = self._functions_of(process, mapping)
        in_file = address - mapping.start + mapping.offset
        if functions is None:
            module = mapping.path.removesuffix(_DELETED)
            found: Function | None = None
            if not mapping.inode or module.startswith(("/memfd:", "/dev/zero", "/SYSV")):
                found = process.compiled(address)
                in_file = 0
            return _frame_of(found, module, in_file, is_call)
        key = functions.number, in_file, is_call, mapping.path
        frame = self._frames.get(key)
        if frame is None:
            at = functions.address_at(in_file)
            found = None if at is None else functions.find(at)
            if len(self._frames) >= _MOST_FRAMES:
                self._frames.clear()
            frame = _frame_of(found, mapping.path.removesuffix(_DELETED), in_file, is_call)
            if found is None and at is not None and (build_id := functions.build_id):
                frame = frame._replace(code=f"{build_id}\t{at:#x}")
            self._frames[key] = frame
        return frame

    def _functions_of(self, process: _Process, mapping: Mapping) -> ElfFunctions | None:
        if mapping.path == "[vdso]":
            if self._vdso is None:
                self._vdso = ElfFunctions(MemorySource(own_vdso()))
            return self._vdso
        if not mapping.inode:
            return None
        key = mapping.device, mapping.inode, mapping.path
        file = process.files.get(key)
        if key not in process.files or (file and not file.is_open):
            file = process.files[key] = self._shared(process.pid, mapping)
        return file.functions if file else None

    def _shared(self, pid: int, mapping: Mapping) -> _File | None:
        """Returns a file that is open already, whose inode number cannot be reused, or opens it."""
        anywhere = "", mapping.device, mapping.inode, ""
        seen = self._seen.get(_here(pid, mapping)) or self._seen.get(anywhere)
        now = time.monotonic()
        if seen and now < seen[0] and seen[1].is_unchanged:
            self._files.move_to_end((seen[1].identity, seen[1].only_in))
            return seen[1]
        file = self._open(pid, mapping)
        if file is None:
            return None
        # If stat() reports another device (btrfs, and overlayfs before Linux 6.8), device and inode may belong to
        # several files, but hardly at one path of one mount namespace.
        is_unique = file.identity[0] == mapping.device
        key = anywhere if is_unique and not file.only_in else _here(pid, mapping)
        if len(self._seen) >= _MOST_SEEN:
            self._seen.clear()
        self._seen[key] = math.inf if is_unique else now + _SHARED_SECONDS, file
        return file

    def _open(self, pid: int, mapping: Mapping) -> _File | None:
        source = open_mapped(pid, mapping)
        if source is None:
            return None
        identity = identity_of(source)
        namespace = procfs.link(f"/proc/{pid}/ns/mnt")
        for key in ((identity, namespace), (identity, "")):
            if key in self._files:
                source.close()
                self._files.move_to_end(key)
                return self._files[key]
        return self._read(source, identity, pid, mapping.path.removesuffix(_DELETED))

    def _read(self, source: FileSource, identity: tuple[int, ...], pid: int, path: str) -> _File | None:
        only_in = ""

        def separate(elf: ElfFile) -> FileSource | None:
            nonlocal only_in
            found = debug_files.find(pid, path, elf)
            if found and not found.is_of_node:
                only_in = procfs.link(f"/proc/{pid}/ns/mnt")
            return found.source if found else None

        functions = ElfFunctions(source, separate)
        if not functions.is_elf:
            source.close()
            return None
        file = self._files[identity, only_in] = _File(source, functions, identity, only_in)
        self._symbols += functions.symbols
        while len(self._files) > 1 and (len(self._files) > MOST_FILES or self._symbols > MOST_SYMBOLS):
            gone = self._files.popitem(last=False)[1]  # a process that needs it opens it again
            self._symbols -= gone.functions.symbols
            gone.close()
            self._seen = {key: seen for key, seen in self._seen.items() if seen[1] is not gone}
        return file


def open_mapped(pid: int, mapping: Mapping) -> FileSource | None:
    """Returns the file that a process has mapped, or None."""
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
        if identity_of(source)[1] == mapping.inode:
            return source
        source.close()
    return None


def identity_of(source: FileSource) -> tuple[int, ...]:
    """Returns device, inode, time of change and size."""
    status = os.fstat(source.fd)
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def _here(pid: int, mapping: Mapping) -> tuple[str, int, int, str]:
    return procfs.link(f"/proc/{pid}/ns/mnt"), mapping.device, mapping.inode, mapping.path


def _frame_of(found: Function | None, module: str, in_file: int, is_call: bool) -> ResolvedFrame:
    if found is None:
        return ResolvedFrame(UNKNOWN, module or "[anon]", in_file + is_call if in_file else None)
    return ResolvedFrame(found.name, module or "[jit]", found.offset + is_call)


def own_vdso() -> bytes:
    """Returns the vDSO, the kernel's code in every process, read from this one; empty if it cannot be read."""
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
