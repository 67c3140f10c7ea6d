"""Names of the flags that calls which mount have."""

import pytest

from kubectl_gadget.linux.files import fsnotify_mask_names, mount_flag_names


@pytest.mark.parametrize(
    ("call", "flags", "names"),
    [
        (0, 0, ""),
        (1, 0, ""),
        (1, 1 | 4096 | 16384, "MS_RDONLY|MS_BIND|MS_REC"),
        (1, 0xC0ED0000 | 2, "MS_NOSUID"),
        (2, 2, "MNT_DETACH"),
        (5, 0, "FSCONFIG_SET_FLAG"),
        (5, 6, "FSCONFIG_CMD_CREATE"),
        (5, 77, "77"),
        (6, 0x10 | 1, "MOUNT_ATTR_RDONLY|MOUNT_ATTR_NOATIME"),
        (6, 0x70, "MOUNT_ATTR__ATIME"),
        (7, 0x44, "MOVE_MOUNT_F_EMPTY_PATH|MOVE_MOUNT_T_EMPTY_PATH"),
        (8, 0x80001, "OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC"),
        (8, 1 << 30, "0x40000000"),
    ],
)
def test_flags_mean_what_they_do_in_their_call(call: int, flags: int, names: str) -> None:
    assert mount_flag_names(call << 32 | flags) == names


def test_a_bit_means_what_its_own_interface_says() -> None:
    assert fsnotify_mask_names(0x102 | 0x40000000) == "MODIFY|CREATE|ISDIR"
    assert fsnotify_mask_names(1 << 63 | 0x20 | 0x40000000) == "OPEN|ONDIR"
    assert fsnotify_mask_names(0x8000) == "IGNORED"
    assert fsnotify_mask_names(1 << 63 | 0x8000) == "FS_ERROR"
    assert fsnotify_mask_names(1 << 63 | 1 << 40) == hex(1 << 40)
    assert fsnotify_mask_names(0) == ""
