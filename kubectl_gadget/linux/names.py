"""Names of Linux's numbers: files, network, processes, BPF, and the arguments of LSM hooks.

The client may run on macOS or Windows, whose `errno` and `os` modules have other values, so nothing here uses the
client's own system. The trap: four open flags have swapped values on arm64 (arch/arm64/include/uapi/asm/fcntl.h).
"""

import socket
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from kubectl_gadget.gadgets.schema import UNKNOWN
from kubectl_gadget.wire.kernel_enums import BPF_COMMANDS, BPF_MAP_TYPES, BPF_PROGRAM_TYPES, CAPABILITIES, TCP_STATES

# Tables of names, in text files of tables/, in which `#` begins a comment. And names of numbers by them.

Constants = Sequence[tuple[int, str]]
"""Numbers and their names."""


def table_lines(name: str) -> list[list[str]]:
    """The words of each line of a table."""
    text = (Path(__file__).parent / "tables" / f"{name}.txt").read_text("utf-8")
    return [line.split() for line in text.splitlines() if not line.startswith("#")]


def table_words(name: str) -> list[str]:
    return [word for line in table_lines(name) for word in line]


def constants(group: str) -> Constants:
    """The constants in a group of constants.txt; none if there is no such group."""
    return _groups().get(group, ())


@cache
def _groups() -> Mapping[str, Constants]:
    found: dict[str, list[tuple[int, str]]] = {}
    for number, name in table_lines("constants"):
        if number == "group":
            group = found[name] = []
        else:
            group.append((int(number, 0), name))
    return found


class Namer:
    """The function from a number to its name: empty for `none`, and the number itself if it has no name."""

    def __init__(self, names: Mapping[int, str] | Sequence[str], none: int | None = None) -> None:
        self._names = names if isinstance(names, Mapping) else dict(enumerate(names))
        self._none = none

    def __call__(self, number: int) -> str:
        return "" if number == self._none else self._names.get(number) or str(number)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._names.values())


def flag_names(flags: int, names: Constants) -> str:
    """The names of the bits that are set; bits without a name come last, in hex. Empty for 0."""
    found = []
    for bits, name in names:
        if flags & bits == bits:
            found.append(name)
            flags &= ~bits
    return "|".join([*found, hex(flags)] if flags else found)


# The names.

# Files: errno values and flags of open.


ERRNO_NAMES: dict[int, str] = {int(number): name for number, name in table_lines("errno")}
"""asm-generic/errno.h, the same on x86 and arm64, and the kernel's internal errors, which tracepoints can see."""

errno_name = Namer(ERRNO_NAMES)
"""`ENOENT` for 2, `0` for 0"""
_ACCESS = ("O_RDONLY", "O_WRONLY", "O_RDWR", "3")
_FLAGS = constants("open")
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


# Mount flags (include/uapi/linux/mount.h and fcntl.h), the same on all architectures.


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


# Event bits of inotify and fanotify (include/uapi/linux/inotify.h, fanotify.h).


_FANOTIFY = 1 << 63


def fsnotify_mask_names(mask: int) -> str:
    """`MODIFY|CLOSE_WRITE`, without the prefixes IN_ and FAN_."""
    return flag_names(mask & ~_FANOTIFY, constants("fanotify" if mask & _FANOTIFY else "inotify"))


# Devices that every program may use and that keep nothing, so that their use says nothing about the program.


USUAL_DEVICES = frozenset(
    f"/dev/{name}"
    for name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "console", "stdin", "stdout", "stderr")
)


# Network: families, protocols, TCP states and flags; and addresses as text. An IPv4 address comes as an IPv6 one
# (::ffff:1.2.3.4) and is shown as IPv4, whatever the kind of socket.


_FAMILIES = {1: "unix", 2: "IPv4", 10: "IPv6", 16: "netlink", 17: "packet", 38: "alg", 40: "vsock", 44: "xdp"}
_PROTOCOLS = {
    0: "IP", 1: "ICMP", 2: "IGMP", 6: "TCP", 17: "UDP", 33: "DCCP", 41: "IPv6", 47: "GRE", 50: "ESP", 51: "AH",
    58: "ICMPv6", 132: "SCTP", 136: "UDPLITE", 255: "RAW", 262: "MPTCP",
    0xFF11: "PACKET", 0xFF2C: "XDP",
}  # fmt: skip
"""The last two are no protocols, but kinds of sockets (bpf/snapshot_socket.bpf.c)."""
family_name = Namer(_FAMILIES)
"""`IPv4` for AF_INET"""
protocol_name = Namer(_PROTOCOLS)
"""`TCP` for IPPROTO_TCP"""
icmp_type_name = Namer({8: "echo request", 128: "echo request v6"})
"""of an ICMP or ICMPv6 message (IANA's ICMP parameters)"""
tcp_state_name = Namer(TCP_STATES, none=0)
"""`ESTABLISHED` for TCP_ESTABLISHED (include/net/tcp_states.h); empty for 0, which means no state"""
_TCP_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")
_MAPPED = bytes(10) + b"\xff\xff"
_NO_ADDRESS = b"\xff" * 16


def tcp_flag_names(flags: int) -> str:
    """`SYN|ACK` for the flags of a TCP header (RFC 9293), lowest bit first; bits without a name come last, in hex."""
    return flag_names(flags, [(1 << bit, name) for bit, name in enumerate(_TCP_FLAGS)])


def address_text(address: bytes) -> str | None:
    """`127.0.0.1` or `2001:db8::1` (RFC 5952) for 16 bytes, which may lack trailing NULs; None: no address."""
    address = address.ljust(16, b"\0")
    if address == _NO_ADDRESS:
        return None
    if address.startswith(_MAPPED):
        return ".".join(map(str, address[12:]))
    return socket.inet_ntop(socket.AF_INET6, address)


# Processes: signals and their codes, capabilities, namespaces, ptrace requests. They are the same on x86-64 and arm64.
# Positive signal codes have a different meaning for each signal.


_SIGNALS = (
    "", "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL", "SIGUSR1",
    "SIGSEGV", "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGTERM", "SIGSTKFLT", "SIGCHLD", "SIGCONT", "SIGSTOP",
    "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGXCPU", "SIGXFSZ", "SIGVTALRM", "SIGPROF", "SIGWINCH", "SIGIO",
    "SIGPWR", "SIGSYS",
)  # fmt: skip
_FIRST_REALTIME, _LAST = 34, 64
"""The C library reserves 32 and 33."""
_CODES = dict(constants("SI"))
_NAMESPACES = constants("CLONE_NEW")

NAMESPACE_KINDS = ("uts", "ipc", "mnt", "pid", "pid_for_children", "net", "time", "time_for_children", "cgroup", "user")
"""The kinds in the order of the bits in gadget_namespace_kinds (bpf/include/gadget/credentials.h)."""
_NONE = 0xFFFFFFFF
ptrace_request_name = Namer(dict(constants("PTRACE")), _NONE)
"""`PTRACE_ATTACH` for 16"""
prctl_option_name = Namer(dict(constants("PR")), _NONE)
"""`PR_CAPBSET_DROP` for 24"""
capability_name = Namer([f"CAP_{name}" for name in CAPABILITIES])
"""`CAP_SYS_ADMIN` for 21"""


def signal_name(number: int) -> str:
    """`SIGKILL` for 9, `SIGRTMIN+1` for 35, empty for 0 (no signal), and the number itself for any other."""
    if 0 <= number < len(_SIGNALS):
        return _SIGNALS[number]
    if _FIRST_REALTIME <= number <= _LAST:
        return f"SIGRTMIN+{number - _FIRST_REALTIME}" if number > _FIRST_REALTIME else "SIGRTMIN"
    return str(number)


SIGNAL_NAMES = tuple(signal_name(number) for number in range(1, _LAST + 1) if not signal_name(number).isdecimal())
"""all that signal_name() knows, in the order of their numbers"""


def signal_set_names(bits: int) -> str:
    """`SIGINT|SIGTERM` for a set of signals, whose lowest bit is signal 1; `none` for an empty set."""
    return "|".join(signal_name(number + 1) for number in range(bits.bit_length()) if bits >> number & 1) or "none"


def signal_code_name(signal: int, code: int) -> str:
    """`SI_USER`, `SEGV_MAPERR`: the cause of a signal (siginfo's si_code); the number itself if it has no name here."""
    return dict(constants(signal_name(signal))).get(code) or _CODES.get(code, str(code))


_ALL_CAPABILITIES = (1 << len(CAPABILITIES)) - 1
_FEW = 8


def capability_names(bits: int) -> str:
    """`CAP_KILL|CAP_SETUID` for a set of capabilities; `all` for every capability with a name, `none` for an empty set;
    an empty text if the set is unknown."""
    if bits == UNKNOWN:
        return ""
    if bits == 0:
        return "none"
    if bits == _ALL_CAPABILITIES:
        return "all"
    return "|".join(capability_name(number) for number in range(bits.bit_length()) if bits >> number & 1)


def capability_summary(bits: int) -> str:
    """The same for tables: `all but CAP_SYS_TIME` if few are missing. Not for filters: the text contains the names of
    the missing ones."""
    missing = ~bits & _ALL_CAPABILITIES
    if bits & ~_ALL_CAPABILITIES or not 0 < missing.bit_count() <= _FEW:
        return capability_names(bits)
    return f"all but {capability_names(missing)}"


def namespace_names(flags: int) -> str:
    """`CLONE_NEWUSER|CLONE_NEWNET` for the flags of clone, unshare and setns."""
    return flag_names(flags, _NAMESPACES)


def namespace_kind_names(bits: int) -> str:
    """`uts|ipc` for a set of kinds of namespaces; empty if the set is unknown."""
    return "" if bits == _NONE else flag_names(bits, [(1 << bit, name) for bit, name in enumerate(NAMESPACE_KINDS)])


# Snapshots: states of tasks and sockets, file types, device numbers.


_TASK_STATES = (
    (0x20, "zombie"),
    (0x10, "dead"),
    (0x08, "traced"),
    (0x04, "stopped"),
    (0x40, "parked"),
    (0x02, "blocked"),
    (0x01, "sleeping"),
)
_NO_LOAD_BLOCKED = 0x402
_FILE_TYPES = {
    0o170000: "",
    0o010000: "pipe", 0o020000: "character", 0o040000: "directory", 0o060000: "block", 0o100000: "regular",
    0o120000: "link", 0o140000: "socket", 0: "anonymous",
}  # fmt: skip
_CONNECTED, _UNCONNECTED = 256, 257


def task_state_name(state: int) -> str:
    """`running` (or waiting for a CPU), `sleeping`, `blocked` (uninterruptible), `idle`, `zombie` and so on."""
    if state & _NO_LOAD_BLOCKED == _NO_LOAD_BLOCKED:
        return "idle"
    return next((name for bit, name in _TASK_STATES if state & bit), "running")


def file_type_name(type: int) -> str:
    """The file type in a mode (inode(7)) as a word; `anonymous` for kernel objects that have no type bits."""
    return _FILE_TYPES.get(type, oct(type))


def socket_state_name(state: int) -> str:
    """TCP's states; CONNECTED and UNCONNECTED for other protocols (bpf/snapshot_socket.bpf.c)."""
    return {_CONNECTED: "CONNECTED", _UNCONNECTED: "UNCONNECTED"}.get(state) or tcp_state_name(state)


def device_number_text(number: int) -> str:
    """`8:1`: major and minor number in the kernel's encoding (12 and 20 bits)."""
    return f"{number >> 20}:{number & 0xFFFFF}"


def protection_text(bits: int) -> str:
    """`r-x` for PROT_READ|PROT_EXEC; empty for no access."""
    if bits == 0xFFFFFFFF:
        return ""
    return "".join(letter if bits & bit else "-" for bit, letter in ((1, "r"), (2, "w"), (4, "x")))


_NO_TYPE = 0xFFFFFFFF

bpf_command_name = Namer(BPF_COMMANDS)
"""`PROG_LOAD` for BPF_PROG_LOAD"""
bpf_program_type_name = Namer(BPF_PROGRAM_TYPES, _NO_TYPE)
"""`KPROBE` for BPF_PROG_TYPE_KPROBE"""
bpf_map_type_name = Namer(BPF_MAP_TYPES, _NO_TYPE)
"""`HASH` for BPF_MAP_TYPE_HASH"""


# Arguments of LSM hooks that trace lsm sends, by the hook's name.


Spell = Callable[[int], str]

_READS = ("", "firmware", "module", "kexec image", "kexec initramfs", "policy", "certificate")
_UNCHANGED = 0xFFFFFFFF


def _set(group: str) -> Spell:
    return lambda flags: flag_names(flags, constants(group)) or "0"


def _device(number: int) -> str:
    """A device number as user space encodes it: 12 bits of major number between two parts of the 20-bit minor
    number."""
    return f"{number >> 8 & 0xFFF}:{number & 0xFF | number >> 12 & 0xFFF00}"


def _owner(number: int) -> str:
    return "unchanged" if number == _UNCHANGED else str(number)


_OPEN = "flags of open"
"""Marks arguments whose names depend on the architecture."""
_ARGUMENTS: Mapping[str, Sequence[tuple[str, Spell | str]]] = {
    "file_open": (("flags", _OPEN),),
    "file_receive": (("flags", _OPEN),),
    "file_truncate": (("flags", _OPEN),),
    "file_ioctl": (("command", hex), ("argument", hex)),
    "file_fcntl": (("command", Namer(dict(constants("F")))), ("argument", hex)),
    "file_lock": (("lock", Namer(("F_RDLCK", "F_WRLCK", "F_UNLCK"))),),
    "file_mprotect": (("protection", _set("PROT")),),
    "mmap_file": (("protection", _set("PROT")), ("flags", _set("MAP"))),
    "path_mkdir": (("mode", "{:04o}".format),),
    "path_mknod": (("mode", "{:04o}".format), ("device", _device)),
    "path_chmod": (("mode", "{:04o}".format),),
    "path_chown": (("uid", _owner), ("gid", _owner)),
    "path_rename": (("flags", _set("RENAME")),),
    "sb_mount": (("flags", lambda flags: mount_flag_names(1 << 32 | flags & 0xFFFFFFFF) or "0"),),
    "sb_umount": (("flags", _set("umount")),),
    "task_kill": (("signal", lambda number: signal_name(number) or "0"),),
    "ptrace_access_check": (("mode", _set("PTRACE_MODE")),),
    "task_prctl": (("option", prctl_option_name), ("argument", hex), ("argument", hex)),
    "socket_create": (("family", family_name), ("type", Namer(dict(constants("SOCK")))), ("protocol", protocol_name)),
    "socket_bind": (("family", family_name),),
    "socket_connect": (("family", family_name),),
    "socket_listen": (("family", family_name), ("backlog", str)),
    "socket_accept": (("family", family_name),),
    "bpf": (("command", Namer([f"BPF_{name}" for name in BPF_COMMANDS])),),
    "kernel_read_file": (("for", Namer(_READS)),),
    "kernel_load_data": (("for", Namer(_READS)),),
    "locked_down": (("reason", str),),
    "syslog": (("type", str),),
}


def lsm_argument_texts(hook: str, values: Sequence[int], architecture: str) -> str:
    """`mode=0644`, `uid=0 gid=unchanged`: the hook's arguments. Empty if it has no numeric arguments."""
    known = _ARGUMENTS.get(hook, ())
    texts = []
    for place, value in enumerate(values):
        name, spell = known[place] if place < len(known) else (f"argument_{place + 1}", str)
        if isinstance(spell, str):
            texts.append(f"{name}={open_flag_names(value, architecture)}")
        else:
            texts.append(f"{name}={spell(value)}")
    return " ".join(texts)
