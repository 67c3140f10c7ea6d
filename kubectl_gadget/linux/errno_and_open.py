"""Names of Linux's errno values and open(2) flags.

The client may run on macOS or Windows, whose `errno` and `os` modules have other values, so nothing here uses the
client's own system. The trap: four open flags have swapped values on arm64 (arch/arm64/include/uapi/asm/fcntl.h).
"""

from kubectl_gadget.linux import tables

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
