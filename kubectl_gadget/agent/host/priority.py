"""The agent's priority on a busy CPU: a ring is full after a tenth of a second of events at full speed.

The trap: with autogroups, a process's own priority counts only within its session.
"""

import os
from contextlib import suppress

_NICE = -10


def raise_priority() -> None:
    """Makes this process run soon when it has something to do. Does nothing without CAP_SYS_NICE."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
        with open("/proc/self/autogroup", "w") as file:
            file.write(str(_NICE))
