"""Reads the bytes of an ELF file, a piece at a time.

Files are read and not mapped: a container may truncate a file meanwhile, and accessing a mapping of it would then kill
the agent. The trap: a read may return less than was asked for.
"""

import os
import stat
from collections.abc import Callable
from typing import NamedTuple, Protocol

_MOST_NAME_BYTES = 4096


class ElfSource(Protocol):
    """The bytes of an ELF file."""

    def read(self, offset: int, size: int) -> bytes:
        """Returns bytes at an offset, fewer than `size` at the end."""
        ...


class FileSource:
    """An open file, which the object owns."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def read(self, offset: int, size: int) -> bytes:
        pieces = []
        while size > 0:
            try:
                piece = os.pread(self.fd, min(size, 1 << 24), offset)
            except (OSError, OverflowError):
                break
            if not piece:
                break
            pieces.append(piece)
            offset, size = offset + len(piece), size - len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Closes the file. Later reads return nothing."""
        os.close(self.fd)
        self.fd = -1


class MemorySource:
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]


class ElfTexts(NamedTuple):
    """A table of NUL-terminated texts."""

    source: ElfSource
    start: int
    size: int

    def at(self, offset: int) -> bytes:
        """Returns the text that begins there; empty beyond the table's end."""
        if not 0 <= offset < self.size:
            return b""
        return self.source.read(self.start + offset, min(_MOST_NAME_BYTES, self.size - offset)).partition(b"\0")[0]


def open_file(opened: Callable[[], int]) -> FileSource | None:
    """Takes the descriptor that a function opens. Returns None when the file is gone, or is not one that can be read
    without waiting."""
    try:
        fd = opened()
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    return FileSource(fd)
