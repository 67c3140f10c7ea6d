"""Names of Linux's numbers about BPF and LSM hooks."""

from collections.abc import Callable, Mapping, Sequence

from kubectl_gadget.linux.files import mount_flag_names, open_flag_names
from kubectl_gadget.linux.network import family_name, protocol_name
from kubectl_gadget.linux.processes import prctl_option_name, signal_name
from kubectl_gadget.linux.tables import Namer, constants, flag_names
from kubectl_gadget.wire.kernel_enums import BPF_COMMANDS, BPF_MAP_TYPES, BPF_PROGRAM_TYPES

# Names of bpf(2)'s commands, program types and map types (include/uapi/linux/bpf.h), in order from 0.


_NONE = 0xFFFFFFFF

bpf_command_name = Namer(BPF_COMMANDS)
"""`PROG_LOAD` for BPF_PROG_LOAD"""
bpf_program_type_name = Namer(BPF_PROGRAM_TYPES, _NONE)
"""`KPROBE` for BPF_PROG_TYPE_KPROBE"""
bpf_map_type_name = Namer(BPF_MAP_TYPES, _NONE)
"""`HASH` for BPF_MAP_TYPE_HASH"""


# Formats the arguments of LSM hooks that trace lsm sends, by the hook's name.


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
