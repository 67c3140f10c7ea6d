"""Returns memory that the client has freed to the system: glibc's heaps only grow by default.

Megabytes of frames and columns are allocated and freed in two threads, each with a heap of its own, whose holes are too
small for the next ones. A client that could not keep up grew by 1.3 MiB/s and stood at 540 MiB after 200 s; with these
settings it stood at 360 MiB. The trap: a thread gets a heap of its own at its first allocation, so call this before
threads start.
"""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""From <malloc.h>; other C libraries do not have mallopt()."""


def give_back_what_is_freed() -> None:
    """Gives large blocks mappings of their own, and all threads one heap. Does nothing where unsupported."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, 1 << 20)
        mallopt(_M_TRIM_THRESHOLD, 16 << 20)
