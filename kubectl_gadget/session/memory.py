"""Gives memory back that the client has freed: glibc's heaps, unlike the objects in them, only grow.

Megabytes of frames and columns come and go in two threads, each with a heap of its own, whose holes are too small for
the next ones. A client that could not keep up grew by 1.3 MiB/s and stood at 540 MiB after 200 s, and with this at
360 MiB. The trap: a heap of its own is given to each thread at its first allocation, so this comes before threads.
"""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""Of <malloc.h>; other C libraries have no mallopt()."""


def give_back_what_is_freed() -> None:
    """Large pieces get mappings of their own, and all threads share one heap. Does nothing where that is unknown."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, 1 << 20)
        mallopt(_M_TRIM_THRESHOLD, 16 << 20)
