"""Formats arguments of system calls: `3, "GET / HTTP"..., 1024`, in the manner of strace.

Each kind of argument (syscall_table.py) has a function here. The trap: numbers come as 64 bits, whatever their C type,
so the upper half of an int may hold anything.
"""

import socket
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from kubectl_gadget.linux.errno_and_open import open_flag_names
from kubectl_gadget.linux.process_constants import namespace_names, signal_name
from kubectl_gadget.linux.syscall_table import arguments
from kubectl_gadget.linux.syscalls import name_in_64_bits, syscall_name
from kubectl_gadget.linux.tables import Namer, constants, flag_names

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
        length = {"out": result or 0, "in": following}.get(kind, 0)
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
