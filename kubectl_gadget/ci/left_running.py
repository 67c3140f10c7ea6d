"""Processes that COMMAND started and that outlive it: they become children of ours, so that they can be counted.

The trap: a process that forks and ends again and again is never seen twice. But each of its parents stays a zombie in
/proc until it is reaped here, so a look that finds no child of ours proves that none is left.
"""

import asyncio
import ctypes
import os
import time
from collections.abc import Iterator, Mapping

_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.05
_REAP_SECONDS = 1.0
_ZOMBIE = "Z"


class LeftRunning:
    """Orphans of COMMAND. Made before COMMAND starts; all children that we have then are not its."""

    def __init__(self) -> None:
        self._ours = {pid for pid, _ in _children(_processes())}
        """COMMAND itself, and the agent"""
        _become_reaper(True)

    def close(self) -> None:
        """Orphans go to init again."""
        _become_reaper(False)

    async def reap(self) -> None:
        """Until it is cancelled: a long build must not fill the table of processes with zombies."""
        while True:
            await asyncio.sleep(_REAP_SECONDS)
            self._look()

    async def wait(self, seconds: float) -> int:
        """How many are still running after this time, or 0 as soon as none is."""
        deadline = time.monotonic() + seconds
        while True:
            number = self._look()
            if not number or time.monotonic() >= deadline:
                return number
            await asyncio.sleep(_POLL_SECONDS)

    def _look(self) -> int:
        """The number of processes that were found, also those that have just ended."""
        found = _processes()
        orphans = [(pid, state) for pid, state in _children(found) if pid not in self._ours]
        for pid, state in orphans:
            if state == _ZOMBIE:
                os.waitpid(pid, os.WNOHANG)
        below, number = [pid for pid, _ in orphans], 0
        while below:
            number += len(below)
            parents = set(below)
            below = [pid for pid, (parent, state) in found.items() if parent in parents and state != _ZOMBIE]
        return number


def _children(processes: Mapping[int, tuple[int, str]]) -> Iterator[tuple[int, str]]:
    ours = os.getpid()
    return ((pid, state) for pid, (parent, state) in processes.items() if parent == ours)


def _processes() -> dict[int, tuple[int, str]]:
    """The parent and the state of each process of this machine."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    # The name of a program is in brackets, and may have spaces and brackets itself.
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
            except (FileNotFoundError, ProcessLookupError):
                continue
            found[int(name)] = int(parent), state.decode()
    return found


def _become_reaper(wanted: bool) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_CHILD_SUBREAPER, ctypes.c_ulong(wanted), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
