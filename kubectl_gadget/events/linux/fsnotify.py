"""Names of the event bits of inotify and fanotify (include/uapi/linux/inotify.h, fanotify.h).

The trap: the two share most bits but differ in the others, so the gadget marks which of them a mask is from.
"""

from kubectl_gadget.events.linux.process_constants import flag_names

_FANOTIFY = 1 << 63
_WORDS = "ACCESS MODIFY ATTRIB CLOSE_WRITE CLOSE_NOWRITE OPEN MOVED_FROM MOVED_TO CREATE DELETE DELETE_SELF MOVE_SELF"
_BOTH = tuple((1 << bit, word) for bit, word in enumerate(_WORDS.split()))
_OF_INOTIFY = (
    *((0x2000, "UNMOUNT"), (0x4000, "Q_OVERFLOW"), (0x8000, "IGNORED"), (0x1000000, "ONLYDIR")),
    *((0x2000000, "DONT_FOLLOW"), (0x4000000, "EXCL_UNLINK"), (0x10000000, "MASK_CREATE"), (0x20000000, "MASK_ADD")),
    *((0x40000000, "ISDIR"), (0x80000000, "ONESHOT")),
)
_OF_FANOTIFY = (
    *((0x1000, "OPEN_EXEC"), (0x4000, "Q_OVERFLOW"), (0x8000, "FS_ERROR"), (0x10000, "OPEN_PERM")),
    *((0x20000, "ACCESS_PERM"), (0x40000, "OPEN_EXEC_PERM"), (0x100000, "PRE_ACCESS"), (0x8000000, "EVENT_ON_CHILD")),
    *((0x10000000, "RENAME"), (0x40000000, "ONDIR")),
)


def fsnotify_mask_names(mask: int) -> str:
    """`MODIFY|CLOSE_WRITE`, without the prefixes IN_ and FAN_."""
    return flag_names(mask & ~_FANOTIFY, (*_BOTH, *(_OF_FANOTIFY if mask & _FANOTIFY else _OF_INOTIFY)))
