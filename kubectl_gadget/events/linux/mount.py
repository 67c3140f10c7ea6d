"""Names of Linux's mount flags (include/uapi/linux/mount.h and fcntl.h), the same on all architectures.

The trap: each call has its own flags, so the BPF programs set the call in the upper half of the 64 bits
(bpf/include/kernel/mount.h).
"""

from kubectl_gadget.events.linux.process_constants import flag_names

_MAGIC = 0xC0ED0000
"""A value that mount(2) required in its flags before Linux 2.4; some programs still pass it."""
_MOUNT = tuple(
    (1 << bit, f"MS_{name}")
    for bit, name in {
        0: "RDONLY", 1: "NOSUID", 2: "NODEV", 3: "NOEXEC", 4: "SYNCHRONOUS", 5: "REMOUNT", 6: "MANDLOCK", 7: "DIRSYNC",
        8: "NOSYMFOLLOW", 10: "NOATIME", 11: "NODIRATIME", 12: "BIND", 13: "MOVE", 14: "REC", 15: "SILENT",
        16: "POSIXACL", 17: "UNBINDABLE", 18: "PRIVATE", 19: "SLAVE", 20: "SHARED", 21: "RELATIME", 23: "I_VERSION",
        24: "STRICTATIME", 25: "LAZYTIME",
    }.items()
)  # fmt: skip
_COMMANDS = (
    "SET_FLAG", "SET_STRING", "SET_BINARY", "SET_PATH", "SET_PATH_EMPTY", "SET_FD", "CMD_CREATE", "CMD_RECONFIGURE",
    "CMD_CREATE_EXCL",
)  # fmt: skip
_COMMAND = 5
_FLAGS = {
    1: _MOUNT,
    2: ((1, "MNT_FORCE"), (2, "MNT_DETACH"), (4, "MNT_EXPIRE"), (8, "UMOUNT_NOFOLLOW")),
    3: ((1, "FSOPEN_CLOEXEC"),),
    4: ((1, "FSPICK_CLOEXEC"), (2, "FSPICK_SYMLINK_NOFOLLOW"), (4, "FSPICK_NO_AUTOMOUNT"), (8, "FSPICK_EMPTY_PATH")),
    6: (
        (0x1, "MOUNT_ATTR_RDONLY"), (0x2, "MOUNT_ATTR_NOSUID"), (0x4, "MOUNT_ATTR_NODEV"), (0x8, "MOUNT_ATTR_NOEXEC"),
        (0x70, "MOUNT_ATTR__ATIME"), (0x10, "MOUNT_ATTR_NOATIME"), (0x20, "MOUNT_ATTR_STRICTATIME"),
        (0x80, "MOUNT_ATTR_NODIRATIME"), (0x100000, "MOUNT_ATTR_IDMAP"), (0x200000, "MOUNT_ATTR_NOSYMFOLLOW"),
    ),
    7: (
        (0x1, "MOVE_MOUNT_F_SYMLINKS"), (0x2, "MOVE_MOUNT_F_AUTOMOUNTS"), (0x4, "MOVE_MOUNT_F_EMPTY_PATH"),
        (0x10, "MOVE_MOUNT_T_SYMLINKS"), (0x20, "MOVE_MOUNT_T_AUTOMOUNTS"), (0x40, "MOVE_MOUNT_T_EMPTY_PATH"),
        (0x100, "MOVE_MOUNT_SET_GROUP"), (0x200, "MOVE_MOUNT_BENEATH"),
    ),
    8: (
        (0x1, "OPEN_TREE_CLONE"), (0x80000, "OPEN_TREE_CLOEXEC"), (0x100, "AT_SYMLINK_NOFOLLOW"),
        (0x800, "AT_NO_AUTOMOUNT"), (0x1000, "AT_EMPTY_PATH"), (0x8000, "AT_RECURSIVE"),
    ),
}  # fmt: skip


def mount_flag_names(value: int) -> str:
    """`MS_RDONLY|MS_BIND`, `MNT_DETACH`, `FSCONFIG_SET_STRING`; bits without a name come last, in hex."""
    call, flags = value >> 32, value & 0xFFFFFFFF
    if call == _COMMAND:
        return f"FSCONFIG_{_COMMANDS[flags]}" if flags < len(_COMMANDS) else str(flags)
    if call == 1 and flags & 0xFFFF0000 == _MAGIC:
        flags &= 0xFFFF
    return flag_names(flags, _FLAGS.get(call, ()))
