"""What a killed run of these tests left mounted, which the start of the next run unmounts.

A bpf file system keeps programs attached that were pinned in it, and one at all system calls makes each of them, and
every benchmark, slower without a word. Other runs may be under way, so only the folders of runs whose process has ended
are touched: pytest writes its number into `.lock`, and removes the file at an orderly end.
"""

import os
import re
import subprocess
from pathlib import Path

from kubectl_gadget.agent.host.cgroups import parse_mountinfo

_RUN = re.compile(r"pytest-\d+")
"""The folder of a run, beside which there may be anything, if it was given by --basetemp."""


def was_killed(run: Path) -> bool:
    """True if the process that made this folder has ended, and has not removed its lock."""
    try:
        number = (run / ".lock").read_text()
    except OSError:
        return False
    return _RUN.fullmatch(run.name) is not None and number.isdigit() and not Path("/proc", number).exists()


def unmount_what_dead_runs_left(own: Path) -> list[Path]:
    """Unmounts what lies in the folders beside `own`, the folder of this run, and returns it."""
    mounted = [Path(os.fsdecode(one.target)) for one in parse_mountinfo(Path("/proc/self/mountinfo").read_bytes())]
    runs = {path: own.parent / path.relative_to(own.parent).parts[0] for path in mounted if own.parent in path.parents}
    found = [path for path, run in runs.items() if run != own and was_killed(run)]
    for path in reversed(found):  # what was mounted last is on top
        if subprocess.run(["umount", path], capture_output=True, check=False).returncode:
            subprocess.run(["umount", "-l", path], capture_output=True, check=False)  # something still uses it
    return found
