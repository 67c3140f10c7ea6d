"""The names of Linux's system calls by number.

Numbers are from bpf/include/kernel/syscalls.h, names from the manual pages: stat, not newstat. Numbers up to 423 differ
by architecture; from there on they are the same. Calls of 32-bit programs have the names of the kernel's tables, where
a variant with larger numbers is a separate call (getuid32, stat64).
"""

import socket
import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, lru_cache
from typing import NamedTuple

from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.schema import ARCHITECTURES
from kubectl_gadget.linux.names import (
    Namer,
    constants,
    flag_names,
    namespace_names,
    open_flag_names,
    signal_name,
    table_lines,
    table_words,
)

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
    """The calls of an architecture, as in uname, by number; `i386` and `arm32` are for 32-bit programs."""
    own = table_words(f"syscalls_{_TABLES.get(architecture, 'x86_64')}")
    found = {number: name for number, name in enumerate(own) if name != "-"}
    return found | dict(enumerate(table_words("syscalls_common"), _FIRST_COMMON))


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


# The argument kinds of each system call, and lists of calls as users write them.


_TABLE_ENTRIES = 512

_POINTS_TO = {
    "path": "s",
    "text": "n",
    "in": "w",
    "out": "r",
    "address": "a",
    "address_out": "A",
    "pair": "i",
    "time": "t",
    "how": "o",
    "list": "v",
}
"""The letter for a kind in the BPF program; all other kinds are plain numbers to it."""
_READ_FIRST = ("execve", "execveat")
_NEVER_RETURN = ("exit", "exit_group")

CLASSES: Mapping[str, tuple[str, ...]] = {
    "%network": (
        *("socket", "socketpair", "connect", "bind", "accept", "accept4", "listen", "getsockname", "getpeername"),
        *("sendto", "recvfrom", "sendmsg", "recvmsg", "sendmmsg", "recvmmsg", "shutdown", "setsockopt", "getsockopt"),
    ),
    "%process": (
        *("clone", "clone3", "fork", "vfork", "execve", "execveat", "exit", "exit_group", "wait4", "waitid"),
        *("kill", "tkill", "tgkill", "pidfd_open", "pidfd_send_signal", "unshare", "setns"),
    ),
    "%memory": ("mmap", "munmap", "mremap", "mprotect", "pkey_mprotect", "brk", "madvise", "mlock", "munlock", "msync"),
}
"""Names for groups of calls. In addition, %file means calls with a path, and %desc calls with a file descriptor."""


@cache
def arguments() -> Mapping[str, tuple[str, ...]]:
    """The argument kinds of each known call, by name."""
    return {name: tuple(kinds) for name, *kinds in table_lines("syscall_arguments")}


def select(text: str) -> frozenset[str]:
    """The calls in a list such as "openat,read,%network". Raises UsageError for names that no architecture has."""
    known = frozenset().union(*(syscall_names(architecture).values() for architecture in ARCHITECTURES))
    found: set[str] = set()
    for word in filter(None, (part.strip() for part in text.split(","))):
        if word in known:
            found.add(word)
        else:
            found.update(_class(word, known))
    if not found:
        raise UsageError("no system call was given", "names such as openat,read, or a class such as %file")
    return frozenset(found)


def kernel_table(architecture: str, wanted: Collection[str] | None = None) -> str:
    """The table for bpf/trace_syscalls.bpf.c: eight letters for each call number; `wanted` None means all calls."""
    known = syscall_names(architecture)
    return "".join(_entry(known.get(number, ""), wanted) for number in range(_TABLE_ENTRIES))


def _entry(name: str, wanted: Collection[str] | None) -> str:
    letters = "".join(_POINTS_TO.get(kind, "-") for kind in arguments().get(name, ())).ljust(6, "-")
    when = "E" if name in _READ_FIRST else "X" if name in _NEVER_RETURN else "-"
    return letters + when + ("1" if wanted is None or name in wanted else "0")


def _class(word: str, known: Collection[str]) -> Collection[str]:
    kinds = {"%file": {"path"}, "%desc": {"fd", "dirfd"}}.get(word)
    if kinds:
        return [name for name, has in arguments().items() if kinds.intersection(has)]
    if word in CLASSES:
        return CLASSES[word]
    from difflib import get_close_matches

    near = get_close_matches(word, [*known, *CLASSES, "%file", "%desc"], 3)
    raise UsageError(f"there is no system call {word!r}", " or ".join(near) or "names such as openat, or %file")


# Formats arguments of system calls: `3, "GET / HTTP"..., 1024`, in the manner of strace.


ARGUMENTS = 6
KILLED = 0xFFFFFFFF
"""Not a call, but the end of a process by a signal. The first argument is the signal; the second: whether core was
dumped."""
Data = bytes | None
"""The memory that an argument points to; None: it could not be read, or was not read."""

_GIVE_ADDRESSES = frozenset({"brk", "mmap", "mremap", "shmat"})
_AT_FDCWD = -100
_MAKES_A_FILE = 0o100 | 0o20000000
"""O_CREAT, and O_TMPFILE without O_DIRECTORY. Without them the kernel ignores the mode, which may be any value."""


class SyscallArgument(NamedTuple):
    """One argument to be formatted."""

    value: int
    data: Data
    length: int
    """length in bytes of the data in the caller's memory; `data` may hold only its beginning"""
    architecture: str


def argument_texts(
    architecture: str, number: int, result: int | None, values: Sequence[int], data: Sequence[Data]
) -> list[str]:
    """The arguments of one call as texts. `values` and `data` have six elements; `result` None means unknown."""
    if number == KILLED:
        return [f"killed by {signal_name(values[0])}" + (" (core dumped)" if values[1] else "")]
    kinds = arguments().get(_known_as(number, architecture))
    if kinds is None:
        return [hex(value) for value in values]
    texts = []
    if kinds[-2:] == ("open_flags", "mode") and not values[len(kinds) - 2] & _MAKES_A_FILE:
        kinds = kinds[:-1]
    for index, kind in enumerate(kinds):
        following = values[index + 1] if index + 1 < ARGUMENTS else 0
        # What a call in progress will have read, and what was not read of it, are addresses.
        length = {"out": -1 if result is None else result, "in": following}.get(kind, 0)
        texts.append(_KINDS[kind](SyscallArgument(values[index], data[index], length, architecture)))
    return texts


def _known_as(number: int, architecture: str) -> str:
    name = syscall_name(number, architecture)
    return name_in_64_bits(name) if "/" in name else name


def result_text(architecture: str, number: int, result: int | None) -> str:
    """A call's result for tables: addresses in hex, and an empty text for errors, which have their own column."""
    if result is None or -4095 <= result < 0:
        return "-"
    is_address = number != KILLED and _known_as(number, architecture) in _GIVE_ADDRESSES
    return hex(result) if is_address or result < 0 or result >= 1 << 32 else str(result)


def _signed(value: int) -> int:
    return (value & 0xFFFFFFFF) - ((value & 0x80000000) << 1)


def _pointer(item: SyscallArgument) -> str:
    return hex(item.value) if item.value else "NULL"


def _int(item: SyscallArgument) -> str:
    return str(_signed(item.value))


def _dirfd(item: SyscallArgument) -> str:
    fd = _signed(item.value)
    return "AT_FDCWD" if fd == _AT_FDCWD else str(fd)


def _quoted(data: bytes) -> str:
    """Quotes data; bytes that are not valid UTF-8 or not printable are escaped."""
    text = data.decode("utf-8", "surrogateescape")
    return '"' + "".join(map(_escaped, text)) + '"'


_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


@lru_cache(1024)
def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    code = ord(character)
    if character.isprintable():
        return character
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _text(item: SyscallArgument) -> str:
    return _pointer(item) if item.data is None else _quoted(item.data)


def _bytes(item: SyscallArgument) -> str:
    if item.data is None and item.length == 0 and item.value:
        return '""'
    if item.data is None:
        return _pointer(item)
    return _quoted(item.data) + ("..." if len(item.data) < item.length else "")


def _list(item: SyscallArgument) -> str:
    if item.data is None:
        return _pointer(item)
    return "[" + ", ".join(map(_quoted, item.data.split(b"\0")[:-1])) + "]"


def _address(item: SyscallArgument) -> str:
    data = item.data
    if data is None or len(data) < 2:
        return _pointer(item)
    family = struct.unpack_from("<H", data)[0]
    if family == 1:
        path = data[2:]
        return "unix:" + (f"@{_quoted(path[1:])}" if path.startswith(b"\0") else _quoted(path.partition(b"\0")[0]))
    if family == 2 and len(data) >= 8:
        return f"{socket.inet_ntoa(data[4:8])}:{struct.unpack_from('>H', data, 2)[0]}"
    if family == 10 and len(data) >= 24:
        return f"[{socket.inet_ntop(socket.AF_INET6, data[8:24])}]:{struct.unpack_from('>H', data, 2)[0]}"
    return f"{_DOMAINS.get(family, family)}:{data[2:].hex()}"


def _pair(item: SyscallArgument) -> str:
    if item.data is None or len(item.data) < 8:
        return _pointer(item)
    return "[{}, {}]".format(*struct.unpack_from("<ii", item.data))


def _time(item: SyscallArgument) -> str:
    if item.data is None or len(item.data) < 16:
        return _pointer(item)
    seconds, nanoseconds = struct.unpack_from("<qq", item.data)
    return f"{seconds}.{nanoseconds:09}s" if 0 <= nanoseconds < 10**9 else f"{{{seconds}, {nanoseconds}}}"


def _how(item: SyscallArgument) -> str:
    if item.data is None or len(item.data) < 24:
        return _pointer(item)
    flags, mode, resolve = struct.unpack_from("<QQQ", item.data)
    return f"{{{open_flag_names(flags, item.architecture)}, {mode:#o}, {resolve:#x}}}"


def _named(group: str) -> Callable[[SyscallArgument], str]:
    name = Namer(dict(constants(group)))
    return lambda item: name(_signed(item.value))


def _flags(*table: tuple[int, str], none: str = "0") -> Callable[[SyscallArgument], str]:
    return lambda item: flag_names(item.value & 0xFFFFFFFF, table) or none


_DOMAINS = dict(constants("AF"))
_socket_type_name = Namer(dict(constants("SOCK")))
_SOCKET_FLAGS = constants("SOCK_flags")
_futex_name = Namer(dict(constants("FUTEX")))
_CLONE = constants("CLONE")


def _open_flags(item: SyscallArgument) -> str:
    flags = item.value & 0xFFFFFFFF
    # Flags of pipe2, dup3 and epoll_create1, which have no access mode.
    return open_flag_names(flags, item.architecture).removeprefix("O_RDONLY|") if flags else "O_RDONLY"


def _socket_type(item: SyscallArgument) -> str:
    flags = flag_names(item.value & 0xFFFFFFF0, _SOCKET_FLAGS)
    return "|".join(filter(None, (_socket_type_name(item.value & 0xF), flags)))


def _clone(item: SyscallArgument) -> str:
    """Flags of clone, whose lowest byte is the signal sent when the child ends, and of setns, which has no signal."""
    flags = item.value & 0xFFFFFFFF
    signal = signal_name(flags & 0x7F)
    sharing = flag_names(flags & sum(bit for bit, _ in _CLONE), _CLONE)
    rest = namespace_names(flags & ~0x7F & ~sum(bit for bit, _ in _CLONE))
    return "|".join(filter(None, (sharing, rest, signal))) or "0"


def _futex(item: SyscallArgument) -> str:
    flags = flag_names(item.value & 0x180, ((0x80, "PRIVATE"), (0x100, "CLOCK_REALTIME")))
    return "|".join(filter(None, (_futex_name(item.value & 0x7F), flags)))


_KINDS: dict[str, Callable[[SyscallArgument], str]] = {
    "pointer": _pointer,
    "size": lambda item: str(item.value),
    "int": _int,
    "hex": lambda item: hex(item.value) if item.value > 9 else str(item.value),
    "fd": _int,
    "dirfd": _dirfd,
    "path": _text,
    "text": _text,
    "in": _bytes,
    "out": _bytes,
    "list": _list,
    "address": _address,
    "address_out": _address,
    "pair": _pair,
    "time": _time,
    "how": _how,
    "mode": lambda item: f"{item.value & 0xFFFF:04o}",
    "open_flags": lambda item: open_flag_names(item.value & 0xFFFFFFFF, item.architecture),
    "descriptor_flags": _open_flags,
    "at_flags": _flags(*constants("AT")),
    "at_remove": _flags((0x200, "AT_REMOVEDIR")),
    "whence": _named("SEEK"),
    "access": _flags((4, "R_OK"), (2, "W_OK"), (1, "X_OK"), none="F_OK"),
    "protection": _flags(*constants("PROT"), none="PROT_NONE"),
    "map_flags": _flags((3, "MAP_SHARED_VALIDATE"), *constants("MAP")),
    "advice": _named("MADV"),
    "signal": lambda item: signal_name(_signed(item.value)) or "0",
    "domain": _named("AF"),
    "socket_type": _socket_type,
    "socket_flags": _flags(*_SOCKET_FLAGS),
    "message_flags": _flags(*constants("MSG")),
    "clone_flags": _clone,
    "wait_flags": _flags(*constants("wait")),
    "fcntl": _named("F"),
    "futex": _futex,
    "epoll": _named("EPOLL_CTL"),
    "clock": _named("CLOCK"),
}
