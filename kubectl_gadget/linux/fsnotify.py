"""Names of the event bits of inotify and fanotify (include/uapi/linux/inotify.h, fanotify.h).

The trap: the two share most bits but differ in the others, so the gadget marks which of them a mask is from.
"""

from kubectl_gadget.linux.tables import constants, flag_names

_FANOTIFY = 1 << 63


def fsnotify_mask_names(mask: int) -> str:
    """`MODIFY|CLOSE_WRITE`, without the prefixes IN_ and FAN_."""
    return flag_names(mask & ~_FANOTIFY, constants("fanotify" if mask & _FANOTIFY else "inotify"))
