"""Names of Linux's numbers about files: errno values, flags of open and mount, events of inotify and fanotify, devices.

The client may run on macOS or Windows, whose `errno` and `os` modules have other values, so nothing here uses the
client's own system. The trap: four open flags have swapped values on arm64 (arch/arm64/include/uapi/asm/fcntl.h).
"""

from kubectl_gadget.linux import tables
from kubectl_gadget.linux.tables import constants, flag_names

ERRNO_NAMES: dict[int, str] = {int(number): name for number, name in tables.lines("errno")}
"""asm-generic/errno.h, the same on x86 and arm64, and the kernel's internal errors, which tracepoints can see."""

errno_name = tables.Namer(ERRNO_NAMES)
"""`ENOENT` for 2, `0` for 0"""
_ACCESS = ("O_RDONLY", "O_WRONLY", "O_RDWR", "3")
_FLAGS = tables.constants("open")
_PLACES = {
    "x86_64": {"O_DIRECT": 0o40000, "O_LARGEFILE": 0o100000, "O_DIRECTORY": 0o200000, "O_NOFOLLOW": 0o400000},
    "aarch64": {"O_DIRECTORY": 0o40000, "O_NOFOLLOW": 0o100000, "O_DIRECT": 0o200000, "O_LARGEFILE": 0o400000},
}
_TMPFILE = 0o20000000


def open_flag_names(flags: int, architecture: str = "x86_64") -> str:
    """`O_RDONLY|O_CLOEXEC`. `architecture` is the node's, as in uname; bits without a name come last, in hex."""
    places = _PLACES["aarch64" if architecture in ("aarch64", "arm64") else "x86_64"]
    names = [_ACCESS[flags & 3]]
    rest = flags & ~3
    if rest & _TMPFILE:
        names.append("O_TMPFILE")
        rest &= ~(_TMPFILE | places["O_DIRECTORY"])
    for bits, name in (*_FLAGS, *((bit, name) for name, bit in places.items())):
        if rest & bits == bits:
            names.append(name)
            rest &= ~bits
    if rest:
        names.append(hex(rest))
    return "|".join(names)


# Names of Linux's mount flags (include/uapi/linux/mount.h and fcntl.h), the same on all architectures.


_MAGIC = 0xC0ED0000
"""A value that mount(2) required in its flags before Linux 2.4; some programs still pass it."""
_COMMANDS = (
    "SET_FLAG", "SET_STRING", "SET_BINARY", "SET_PATH", "SET_PATH_EMPTY", "SET_FD", "CMD_CREATE", "CMD_RECONFIGURE",
    "CMD_CREATE_EXCL",
)  # fmt: skip
_COMMAND = 5
_GROUPS = {1: "MS", 2: "umount", 3: "FSOPEN", 4: "FSPICK", 6: "MOUNT_ATTR", 7: "MOVE_MOUNT", 8: "OPEN_TREE"}
"""By call, the names of its flags in tables/constants.txt."""


def mount_flag_names(value: int) -> str:
    """`MS_RDONLY|MS_BIND`, `MNT_DETACH`, `FSCONFIG_SET_STRING`; bits without a name come last, in hex."""
    call, flags = value >> 32, value & 0xFFFFFFFF
    if call == _COMMAND:
        return f"FSCONFIG_{_COMMANDS[flags]}" if flags < len(_COMMANDS) else str(flags)
    if call == 1 and flags & 0xFFFF0000 == _MAGIC:
        flags &= 0xFFFF
    return flag_names(flags, constants(_GROUPS[call]) if call in _GROUPS else ())


# Names of the event bits of inotify and fanotify (include/uapi/linux/inotify.h, fanotify.h).


_FANOTIFY = 1 << 63


def fsnotify_mask_names(mask: int) -> str:
    """`MODIFY|CLOSE_WRITE`, without the prefixes IN_ and FAN_."""
    return flag_names(mask & ~_FANOTIFY, constants("fanotify" if mask & _FANOTIFY else "inotify"))


# Devices that every program may use and that keep nothing, so that their use says nothing about the program.


USUAL_DEVICES = frozenset(
    f"/dev/{name}"
    for name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "console", "stdin", "stdout", "stderr")
)
