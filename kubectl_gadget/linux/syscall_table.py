"""The argument kinds of each system call, and lists of calls as users write them.

The client passes bpf/trace_syscalls.bpf.c a `kernel_table` with the kind of each pointer argument. The trap: a call
that is not listed here still has up to six arguments, but their number is unknown.
"""

from collections.abc import Collection, Mapping
from functools import cache

from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.schema import ARCHITECTURES
from kubectl_gadget.linux import tables
from kubectl_gadget.linux.syscalls import syscall_names

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
    return {name: tuple(kinds) for name, *kinds in tables.lines("syscall_arguments")}


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
