"""Names of Linux's mount flags (include/uapi/linux/mount.h and fcntl.h), the same on all architectures.

The trap: each call has its own flags, so the BPF programs set the call in the upper half of the 64 bits
(bpf/include/kernel/mount.h).
"""

from kubectl_gadget.linux.tables import constants, flag_names

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
