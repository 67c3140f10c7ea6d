"""/tmp/perf-PID.map: the functions that a just-in-time compiler (Node.js, Java, .NET, Python, …) reports.

One line per function: start and length in hexadecimal digits, and the name. The trap: the path is inside the container,
where everything may be hostile: links that lead out of it, pipes that never end. So it is opened below the process's
root only, and only when it is a regular file.
"""

import ctypes
import os
import stat
import struct
from bisect import bisect_right

from kubectl_gadget.agent.elf.elf_functions import Function

_OPENAT2 = 437
_RESOLVE_IN_ROOT = 0x10
_HOW = struct.Struct("<QQQ")
_MOST_BYTES = 64 << 20


class PerfMap:
    """The map of one process; `refresh` reads the file again when it has changed."""

    def __init__(self, pid: int, own_pid: int) -> None:
        self._root = f"/proc/{pid}/root"
        self._path = f"tmp/perf-{own_pid}.map"
        self._seen: tuple[int, int] | None = None
        self._starts: list[int] = []
        self._functions: list[tuple[int, str]] = []

    def refresh(self) -> None:
        """When the file no longer exists, its last content stays valid."""
        fd = open_below(self._root, self._path)
        if fd is None:
            return
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            if (seen := (status.st_size, status.st_mtime_ns)) == self._seen:
                return
            self._seen = seen
            self._parse(file.read(_MOST_BYTES))

    def find(self, address: int) -> Function | None:
        """Returns the function that was reported at this address."""
        place = bisect_right(self._starts, address) - 1
        if place < 0:
            return None
        length, name = self._functions[place]
        offset = address - self._starts[place]
        return Function(name, offset) if offset < length else None

    def _parse(self, text: bytes) -> None:
        found: dict[int, tuple[int, str]] = {}
        for line in text.splitlines():
            parts = line.split(None, 2)
            try:
                # A later line replaces an earlier one.
                found[int(parts[0], 16)] = int(parts[1], 16), parts[2].decode(errors="replace")
            except (ValueError, IndexError):
                continue
        self._starts = sorted(found)
        self._functions = [found[start] for start in self._starts]


def open_below(root: str, path: str) -> int | None:
    """Opens a regular file below `root`, read-only; links must not lead out of it. None: no such file. Linux 5.6."""
    try:
        folder = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        how = ctypes.create_string_buffer(
            _HOW.pack(os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, 0, _RESOLVE_IN_ROOT), _HOW.size
        )
        call = ctypes.CDLL(None).syscall
        call.restype = ctypes.c_long
        fd: int = call(ctypes.c_long(_OPENAT2), folder, os.fsencode(path), how, ctypes.c_size_t(_HOW.size))
    finally:
        os.close(folder)
    if fd < 0:
        return None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    return fd
