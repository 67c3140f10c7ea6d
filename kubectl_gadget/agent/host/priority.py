"""The agent's share of a busy CPU: its ring holds a tenth of a second of what a program at full speed can do.

The trap: with autogroups, a process's own priority counts only within its session.
"""

import os
from contextlib import suppress

_NICE = -10


def raise_priority() -> None:
    """Makes this process run soon after it has something to do. Does nothing where it may not (CAP_SYS_NICE)."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
        with open("/proc/self/autogroup", "w") as file:
            file.write(str(_NICE))
