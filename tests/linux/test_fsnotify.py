"""Masks of inotify and fanotify as names."""

from kubectl_gadget.linux.fsnotify import fsnotify_mask_names


def test_a_bit_means_what_its_own_interface_says() -> None:
    assert fsnotify_mask_names(0x102 | 0x40000000) == "MODIFY|CREATE|ISDIR"
    assert fsnotify_mask_names(1 << 63 | 0x20 | 0x40000000) == "OPEN|ONDIR"
    assert fsnotify_mask_names(0x8000) == "IGNORED"
    assert fsnotify_mask_names(1 << 63 | 0x8000) == "FS_ERROR"
    assert fsnotify_mask_names(1 << 63 | 1 << 40) == hex(1 << 40)
    assert fsnotify_mask_names(0) == ""
