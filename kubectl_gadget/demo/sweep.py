"""Removes everything that a set of demo pods has left: processes, cgroups and the state folder, in this order.

It needs only the folder and the cgroup that contain everything. The trap: a killed process leaves its cgroup a moment
later, and until then the kernel refuses to remove the cgroup.
"""

import os
import shutil
import signal
import time
from pathlib import Path

DEADLINE = 10.0
"""Maximum seconds for killed processes to leave their cgroups."""


def sweep(state: Path, cgroup: Path) -> None:
    """Kills all processes below `cgroup` and removes it and the folder `state`. Raises TimeoutError if it stays
    busy."""
    give_up = time.monotonic() + DEADLINE
    while cgroup.is_dir() and kill_all(cgroup):
        if time.monotonic() > give_up:
            raise TimeoutError(f"processes in {cgroup} do not end")
        time.sleep(0.01)
    while cgroup.is_dir() and not remove_cgroups(cgroup):
        if time.monotonic() > give_up:
            raise TimeoutError(f"{cgroup} cannot be removed")
        time.sleep(0.01)
    if state.is_dir():
        shutil.rmtree(state)


def kill_all(cgroup: Path) -> int:
    """Kills every process below `cgroup` once and returns their number."""
    pids = [int(pid) for procs in cgroup.rglob("cgroup.procs") for pid in _read(procs).split()]
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # it has ended by itself
            continue
    return len(pids)


def remove_cgroups(cgroup: Path) -> bool:
    """Removes the cgroups from the leaves up. Returns False if the kernel reports one as busy."""
    folders = [Path(folder) for folder, _, _ in os.walk(cgroup, topdown=False)]
    for folder in folders:
        try:
            folder.rmdir()
        except FileNotFoundError:
            continue
        except OSError:  # EBUSY: a process is still exiting
            return False
    return True


def _read(procs: Path) -> str:
    try:
        return procs.read_text()
    except OSError:  # the cgroup is gone, or cannot hold processes (EOPNOTSUPP)
        return ""
