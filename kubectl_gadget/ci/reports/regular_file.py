"""Opens files that COMMAND could have replaced. The trap: opening a pipe blocks until its other end is opened."""

import os
import stat

from kubectl_gadget.errors import GadgetError


def open_regular(path: str, flags: int) -> int:
    """The descriptor of a regular file, which is created where `flags` say so. Raises OSError, or GadgetError for
    anything else."""
    # Windows has neither of these flags.
    flags |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o666)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise GadgetError("it is not a regular file")
