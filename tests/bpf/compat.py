"""System calls of 32-bit programs, made by this 64-bit process through int 0x80 (programs/int80.c).

    call("openat", AT_FDCWD, b"/etc/passwd", 0)     # numbers are i386's, texts are placed below 4 GiB

A kernel without CONFIG_IA32_EMULATION kills whoever tries, so `needs` tries in a child first.
"""

import ctypes
import tempfile
from functools import cache
from pathlib import Path

import pytest

from kubectl_gadget.linux.syscalls import syscall_names
from tests.agent.burners import INT80, compile_c
from tests.bpf import deeds

NUMBERS = {name: number for number, name in syscall_names("i386").items()}


@cache
def _library() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        return ctypes.CDLL(str(compile_c(Path(folder) / "int80.so", *INT80)))


def place(data: bytes) -> int:
    """The address below 4 GiB of a copy of `data`, with a NUL behind it."""
    return int(_library().place(data + b"\0", len(data) + 1)) & 0xFFFFFFFF


def call(name: str | int, *arguments: int | bytes) -> int:
    """What the call returns: negative numbers are errors."""
    number = name if isinstance(name, int) else NUMBERS[name]
    words = [place(value) if isinstance(value, bytes) else value & 0xFFFFFFFF for value in arguments]
    result: int = _library().call(number, (ctypes.c_uint32 * 6)(*words))
    return result


@cache
def is_possible() -> bool:
    """True if this kernel has such calls."""
    return deeds.X86 and deeds.in_child(lambda: call("getpid"))[1] == 0


def needs() -> None:
    """Skips the test where the kernel has no such calls."""
    if not is_possible():
        pytest.skip("this kernel has no 32-bit system calls (CONFIG_IA32_EMULATION)")
    _library()
