"""Whether this node can run 32-bit programs.

Kernels without CONFIG_IA32_EMULATION or CONFIG_COMPAT, x86 kernels with ia32_emulation=off, and arm64 processors
without AArch32 cannot. The trap: a wrong "no" would let a container hide, so hints are not enough: the kernel must have
refused to execute a 32-bit program because of its format.
"""

import errno
import os
import struct
from functools import cache

from kubectl_gadget.agent.host import procfs

_MACHINES = {
    # Each exits with 0. i386: mov $1, %eax; xor %ebx, %ebx; int $0x80.
    "x86_64": (3, 0, bytes.fromhex("b80100000031dbcd80")),
    # arm: mov r0, #0; mov r7, #1; svc 0. Flags: the version of the ABI.
    "aarch64": (40, 0x05000000, struct.pack("<III", 0xE3A00000, 0xE3A07001, 0xEF000000)),
}
_HEADERS = 52 + 32
_BASE = 0x10000
_SYSCTL = "/proc/sys/abi/vsyscall32"
"""Exists in x86 kernels that were built to run 32-bit programs."""
_SWITCH = b"ia32_emulation"
"""The boot parameter that can turn them off."""


@cache
def can_run() -> bool:
    """Whether this kernel runs 32-bit programs. True if that is unknown."""
    machine = os.uname().machine
    return machine not in _MACHINES or (machine == "x86_64" and _probably_can()) or not _is_refused(machine)


def _probably_can() -> bool:
    """A "yes" from hints, which most nodes give: it avoids the attempt."""
    boot_parameters = procfs.read("/proc/cmdline")
    return bool(boot_parameters) and os.path.exists(_SYSCTL) and _SWITCH not in boot_parameters


def _is_refused(machine: str) -> bool:
    """Whether the kernel does not know the format of 32-bit programs."""
    try:
        file = os.memfd_create("kubectl-gadget-32", os.MFD_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(file, _program(*_MACHINES[machine]))
        os.waitpid(os.posix_spawn(f"/proc/self/fd/{file}", ["32-bit"], {}), 0)
    except OSError as error:
        return error.errno == errno.ENOEXEC
    finally:
        os.close(file)
    return False


def _program(machine: int, flags: int, code: bytes) -> bytes:
    """Returns a 32-bit ELF file with this code."""
    size = _HEADERS + len(code)
    head = b"\x7fELF\x01\x01\x01" + bytes(9)
    head += struct.pack("<HHIIIIIHHHHHH", 2, machine, 1, _BASE + _HEADERS, 52, 0, flags, 52, 32, 1, 0, 0, 0)
    return head + struct.pack("<IIIIIIII", 1, 0, _BASE, _BASE, size, size, 5, 0x1000) + code
