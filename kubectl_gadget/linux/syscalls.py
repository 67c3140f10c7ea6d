"""The names of Linux's system calls by number.

Numbers are those of bpf/include/kernel/syscalls.h; names are those of the manual pages: stat, not newstat. The trap:
numbers up to 423 differ by architecture; from there on they are the same. Calls of 32-bit programs have the names of
the kernel's tables, where a variant with larger numbers is a separate call (getuid32, stat64).
"""

from collections.abc import Mapping
from functools import cache

from kubectl_gadget.linux import tables

_FIRST_COMMON = 424

_TABLES: Mapping[str, str] = {"aarch64": "aarch64", "arm64": "aarch64", "i386": "i386", "arm32": "arm32"}

COMPAT, X32 = 1 << 29, 1 << 30
"""Bits in the numbers of 32-bit programs' calls and of x32 calls, as in bpf/include/gadget/syscalls/compat.h."""
_COMPAT_TABLES: Mapping[str, str] = {"aarch64": "arm32", "arm64": "arm32"}
_WITH_LARGER_NUMBERS = (
    "lchown getuid getgid geteuid getegid setreuid setregid getgroups setgroups fchown setresuid getresuid setresgid "
    "getresgid chown setuid setgid setfsuid setfsgid"
)
_AS_64_BIT: Mapping[str, str] = {
    **{f"{name}32": name for name in _WITH_LARGER_NUMBERS.split()},
    **{"oldstat": "stat", "oldlstat": "lstat", "oldfstat": "fstat", "stat64": "stat", "lstat64": "lstat"},
    **{"fstat64": "fstat", "fstatat64": "newfstatat", "truncate64": "truncate", "ftruncate64": "ftruncate"},
    **{"mmap2": "mmap", "_newselect": "select", "sendfile64": "sendfile", "fcntl64": "fcntl", "umount": "umount2"},
    **{"ugetrlimit": "getrlimit", "olduname": "uname", "oldolduname": "uname", "waitpid": "wait4"},
    **{"sigaction": "rt_sigaction", "sigprocmask": "rt_sigprocmask", "sigreturn": "rt_sigreturn"},
    **{"send": "sendto", "recv": "recvfrom", "timerfd_gettime64": "timerfd_gettime"},
    **{"timerfd_settime64": "timerfd_settime", "clock_gettime64": "clock_gettime", "clock_settime64": "clock_settime"},
    **{"clock_adjtime64": "clock_adjtime", "timer_gettime64": "timer_gettime", "timer_settime64": "timer_settime"},
}


@cache
def syscall_names(architecture: str) -> Mapping[int, str]:
    """The calls of an architecture, as in uname, by number; `i386` and `arm32` are those of 32-bit programs."""
    own = tables.words(f"syscalls_{_TABLES.get(architecture, 'x86_64')}")
    found = {number: name for number, name in enumerate(own) if name != "-"}
    return found | dict(enumerate(tables.words("syscalls_common"), _FIRST_COMMON))


def name_in_64_bits(name: str) -> str:
    """The 64-bit equivalent of a 32-bit program's call: `stat` for stat64 and for i386/stat64."""
    own = name.rpartition("/")[2]
    return _AS_64_BIT.get(own, own.removesuffix("_time64"))


def syscall_name(number: int, architecture: str = "x86_64") -> str:
    """`openat` for 257 on x86-64; the number itself if it has no name here, and empty for a negative number (no call).

    Calls of 32-bit programs, which have the bit COMPAT, are named as in policies: `i386/open`, `arm32/open`.
    """
    if number > 0 and number & COMPAT:
        table = _COMPAT_TABLES.get(architecture, "i386")
        return f"{table}/{syscall_names(table).get(number & ~COMPAT, number & ~COMPAT)}"
    if number > 0 and number & X32:
        return f"x32/{syscall_names(architecture).get(number & ~X32, number & ~X32)}"
    return syscall_names(architecture).get(number, str(number) if number >= 0 else "")
