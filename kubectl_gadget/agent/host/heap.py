"""Returns memory to the system that was freed after loading programs.

libbpf reads all of the kernel's types to load an object, and glibc keeps those 20 MB for as long as the agent runs.
"""

import ctypes


def give_back_freed_memory() -> None:
    """Takes a millisecond or two. Does nothing where the C library has no malloc_trim()."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
