"""Formats the arguments of LSM hooks that trace lsm sends, by the hook's name.

The meaning of a number depends on the hook. The trap: the kernel's internal numbers (the kind of file that is read,
what is locked down) may change with each version; the ones here have been stable since 5.10.
"""

from collections.abc import Callable, Mapping, Sequence

from kubectl_gadget.events.linux.errno_and_open import open_flag_names
from kubectl_gadget.events.linux.mount import mount_flag_names
from kubectl_gadget.events.linux.network import family_name, protocol_name
from kubectl_gadget.events.linux.process_constants import prctl_option_name, signal_name
from kubectl_gadget.policy_events.kernel_enums import BPF_COMMANDS

Spell = Callable[[int], str]

_PROTECTIONS = {1: "PROT_READ", 2: "PROT_WRITE", 4: "PROT_EXEC"}
_MAPPINGS = {
    1: "MAP_SHARED", 2: "MAP_PRIVATE", 0x10: "MAP_FIXED", 0x20: "MAP_ANONYMOUS", 0x100: "MAP_GROWSDOWN",
    0x800: "MAP_DENYWRITE", 0x2000: "MAP_LOCKED", 0x4000: "MAP_NORESERVE", 0x8000: "MAP_POPULATE",
    0x20000: "MAP_STACK", 0x40000: "MAP_HUGETLB", 0x100000: "MAP_FIXED_NOREPLACE",
}  # fmt: skip
_RENAMES = {1: "RENAME_NOREPLACE", 2: "RENAME_EXCHANGE", 4: "RENAME_WHITEOUT"}
_PTRACE_MODES = {
    1: "READ", 2: "ATTACH", 4: "NOAUDIT", 8: "FSCREDS", 0x10: "REALCREDS",
}  # fmt: skip
_UMOUNTS = {1: "MNT_FORCE", 2: "MNT_DETACH", 4: "MNT_EXPIRE", 8: "UMOUNT_NOFOLLOW"}
_SOCKETS = {1: "SOCK_STREAM", 2: "SOCK_DGRAM", 3: "SOCK_RAW", 4: "SOCK_RDM", 5: "SOCK_SEQPACKET", 10: "SOCK_PACKET"}
_LOCKS = {0: "F_RDLCK", 1: "F_WRLCK", 2: "F_UNLCK"}
_FCNTLS = {
    0: "F_DUPFD", 1: "F_GETFD", 2: "F_SETFD", 3: "F_GETFL", 4: "F_SETFL", 5: "F_GETLK", 6: "F_SETLK", 7: "F_SETLKW",
    8: "F_SETOWN", 9: "F_GETOWN", 10: "F_SETSIG", 11: "F_GETSIG", 36: "F_OFD_GETLK", 37: "F_OFD_SETLK",
    38: "F_OFD_SETLKW", 1024: "F_SETLEASE", 1025: "F_GETLEASE", 1026: "F_NOTIFY", 1030: "F_DUPFD_CLOEXEC",
    1031: "F_SETPIPE_SZ", 1032: "F_GETPIPE_SZ", 1033: "F_ADD_SEALS", 1034: "F_GET_SEALS",
}  # fmt: skip
_BPF = [f"BPF_{name}" for name in BPF_COMMANDS]
_READS = ("", "firmware", "module", "kexec image", "kexec initramfs", "policy", "certificate")
_NOBODY = 0xFFFFFFFF


def _set(names: Mapping[int, str]) -> Spell:
    def spell(flags: int) -> str:
        found = [name for bit, name in names.items() if flags & bit]
        rest = flags & ~sum(names)
        return "|".join([*found, hex(rest)] if rest else found) or "0"

    return spell


def _one(names: Mapping[int, str] | Sequence[str]) -> Spell:
    numbered = names if isinstance(names, Mapping) else dict(enumerate(names))
    return lambda number: numbered.get(number) or str(number)


def _octal(mode: int) -> str:
    return f"{mode:04o}"


def _device(number: int) -> str:
    """A device number as user space encodes it: 12 bits of major number between two parts of the 20-bit minor
    number."""
    return f"{number >> 8 & 0xFFF}:{number & 0xFF | number >> 12 & 0xFFF00}"


def _owner(number: int) -> str:
    return "unchanged" if number == _NOBODY else str(number)


def _mount_flags(flags: int) -> str:
    return mount_flag_names(1 << 32 | flags & 0xFFFFFFFF) or "0"


_OPEN = "flags of open"
"""Marks arguments whose names depend on the architecture."""
_ARGUMENTS: Mapping[str, Sequence[tuple[str, Spell | str]]] = {
    "file_open": (("flags", _OPEN),),
    "file_receive": (("flags", _OPEN),),
    "file_truncate": (("flags", _OPEN),),
    "file_ioctl": (("command", hex), ("argument", hex)),
    "file_fcntl": (("command", _one(_FCNTLS)), ("argument", hex)),
    "file_lock": (("lock", _one(_LOCKS)),),
    "file_mprotect": (("protection", _set(_PROTECTIONS)),),
    "mmap_file": (("protection", _set(_PROTECTIONS)), ("flags", _set(_MAPPINGS))),
    "path_mkdir": (("mode", _octal),),
    "path_mknod": (("mode", _octal), ("device", _device)),
    "path_chmod": (("mode", _octal),),
    "path_chown": (("uid", _owner), ("gid", _owner)),
    "path_rename": (("flags", _set(_RENAMES)),),
    "sb_mount": (("flags", _mount_flags),),
    "sb_umount": (("flags", _set(_UMOUNTS)),),
    "task_kill": (("signal", lambda number: signal_name(number) or "0"),),
    "ptrace_access_check": (("mode", _set(_PTRACE_MODES)),),
    "task_prctl": (("option", prctl_option_name), ("argument", hex), ("argument", hex)),
    "socket_create": (("family", family_name), ("type", _one(_SOCKETS)), ("protocol", protocol_name)),
    "socket_bind": (("family", family_name),),
    "socket_connect": (("family", family_name),),
    "socket_listen": (("family", family_name), ("backlog", str)),
    "socket_accept": (("family", family_name),),
    "bpf": (("command", _one(_BPF)),),
    "kernel_read_file": (("for", _one(_READS)),),
    "kernel_load_data": (("for", _one(_READS)),),
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
