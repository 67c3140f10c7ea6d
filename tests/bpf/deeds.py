"""What the tests let the kernel trace: system calls by number, past libc, which would choose others."""

import ctypes
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

X86 = os.uname().machine == "x86_64"
OPEN, CREAT = 2, 85
"""Of x86-64 alone."""
OPENAT = 257 if X86 else 56
NAME_TO_HANDLE_AT = 303 if X86 else 264
OPEN_BY_HANDLE_AT = 304 if X86 else 265
EXECVEAT = 322 if X86 else 281
OPENAT2 = 437
AT_FDCWD = -100

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


PR_SET_NAME = 15


def name_thread(name: str) -> None:
    """Gives the current thread a name of at most 15 bytes, which its children inherit."""
    _libc.prctl(PR_SET_NAME, name.encode(), 0, 0, 0)


def syscall(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """The result; a negative errno when it failed."""
    converted = [ctypes.c_long(item) if isinstance(item, int) else item for item in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *converted)
    return -ctypes.get_errno() if result < 0 else result


def close_if_open(result: int) -> int:
    """Closes a file descriptor that a system call gave; returns it."""
    if result >= 0:
        os.close(result)
    return result


def open_(path: bytes, flags: int, mode: int = 0) -> int:
    return close_if_open(syscall(OPEN, path, flags, mode))


def creat(path: bytes, mode: int) -> int:
    return close_if_open(syscall(CREAT, path, mode))


def openat(path: bytes | int, flags: int, mode: int = 0) -> int:
    return close_if_open(syscall(OPENAT, AT_FDCWD, path, flags, mode))


def openat2(path: bytes, flags: int, mode: int = 0) -> int:
    how = ctypes.create_string_buffer(struct.pack("<QQQ", flags, mode, 0), 24)
    return close_if_open(syscall(OPENAT2, AT_FDCWD, path, how, 24))


def open_by_handle_at(path: Path, flags: int) -> int:
    """Opens by a handle of `path`. The file system has to have handles: tmpfs and ext4 do, overlayfs may not."""
    handle = ctypes.create_string_buffer(struct.pack("<Ii", 128, 0), 8 + 128)
    mount = ctypes.create_string_buffer(4)
    made = syscall(NAME_TO_HANDLE_AT, AT_FDCWD, os.fsencode(path), handle, mount, 0)
    assert made == 0, f"{path} has no handle: {os.strerror(-made)}"
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        return close_if_open(syscall(OPEN_BY_HANDLE_AT, directory, handle, flags))
    finally:
        os.close(directory)


def in_child(deed: Callable[[], object]) -> tuple[int, int]:
    """Runs `deed` in a child process. Returns its pid and its exit code: 0, or 1 when the deed raised an error."""
    pid = os.fork()
    if pid == 0:
        try:
            deed()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return pid, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def i386_program(calls: Sequence[tuple[int | bytes, ...]]) -> bytes:
    """An ELF file of 32 bits that makes these system calls, each a number and up to three arguments, and exits. A text
    is passed by its address."""
    base, head = 0x08048000, 52 + 32
    texts = b""
    code = b""
    moves = (b"\xb8", b"\xbb", b"\xb9", b"\xba")  # to eax, ebx, ecx, edx
    for call in (*calls, (1, 0)):
        for move, value in zip(moves, call, strict=False):
            number = base + head + len(texts) if isinstance(value, bytes) else value
            texts += value + b"\0" if isinstance(value, bytes) else b""
            code += move + struct.pack("<I", number & 0xFFFFFFFF)
        code += b"\xcd\x80"
    size = head + len(texts) + len(code)
    elf = b"\x7fELF\x01\x01\x01" + bytes(9)
    elf += struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, base + head + len(texts), 52, 0, 0, 52, 32, 1, 0, 0, 0)
    return elf + struct.pack("<IIIIIIII", 1, 0, base, base, size, size, 5, 0x1000) + texts + code
