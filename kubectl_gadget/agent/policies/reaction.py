"""Kills from user space: the process of each event that a policy would have denied or killed, through its pidfd.

For kernels in which no program can do this, and for comparison. The kill comes some time after the event. The trap: the
PID may belong to another process by then, so a pidfd is opened before the check that the process was forked at the time
in the event.
"""

import os
import signal
from collections.abc import Callable, Mapping

from kubectl_gadget.agent.host import procfs
from kubectl_gadget.wire.agent_messages import GadgetStats
from kubectl_gadget.wire.policy_record import read

_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class ProcessKiller:
    """`masks` has the selectors that kill, by the hook's number."""

    def __init__(self, masks: Mapping[int, int], warn: Callable[[str], None]) -> None:
        self._masks = masks
        self.killed = 0
        self.gone = 0
        """events whose process had ended already"""
        self._warn = warn

    def react(self, record: bytes) -> None:
        """Kills the event's process, if a matched selector says so."""
        found = read(record)
        mask = self._masks.get(found.hook, 0)
        if any(mask >> bit & 1 for bit in found.selectors):
            self._kill(found.exec.pid, found.exec.started)

    def add_to(self, stats: GadgetStats) -> GadgetStats:
        """Returns the statistics with the counts of these reactions added."""
        return stats.replace(killed=self.killed, gone=self.gone)

    def _kill(self, pid: int, started: int) -> None:
        try:
            held = os.pidfd_open(pid)
        except OSError:
            self.gone += 1
            return
        try:
            # A process that is exiting still accepts signals, but ends anyway.
            ticks = procfs.start_ticks(pid)
            if not ticks or abs(ticks - started // _TICK) > 1:
                self.gone += 1
                return
            signal.pidfd_send_signal(held, signal.SIGKILL)
            self.killed += 1
        except ProcessLookupError:
            self.gone += 1
        except PermissionError:
            self._warn("it may not kill processes of other users: its container needs the capability KILL")
        finally:
            os.close(held)
