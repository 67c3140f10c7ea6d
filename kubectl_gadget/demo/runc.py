"""Runs runc with cgroup v2, including on machines that mount v2 somewhere else than at /sys/fs/cgroup.

The trap: runc uses v2 only if /sys/fs/cgroup itself is a cgroup2 mount. On a hybrid machine each call runs in its own
mount namespace, in which it is; the machine's own mounts are unchanged.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kubectl_gadget.errors import GadgetError

_RUNC_CGROUP = "/sys/fs/cgroup"
_SEARCH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


Call = Callable[[list[str], Path], int]
"""Runs a command in a folder and returns its exit code."""


@dataclass(frozen=True)
class Runc:
    """runc with its own state directory. `cgroup_mount` is where this machine mounts cgroup v2; `call` runs it."""

    program: str
    state: Path
    cgroup_mount: Path
    call: Call

    def run(self, container_id: str, bundle: Path, *, detach: bool) -> int:
        """Starts the container of `bundle` and returns the PID of its first process, or, without `detach`, its exit
        code when it has ended. Raises GadgetError with runc's message if it cannot be started."""
        pid_file = bundle / "init.pid"
        where = ["--bundle", str(bundle), "--pid-file", str(pid_file)]
        code = self._run(bundle, ["run", *where, *(["--detach"] if detach else []), container_id])
        if not pid_file.exists() or (detach and code):
            raise GadgetError(f"runc could not start the container in {bundle}: {_reason(self._log(bundle))}")
        return int(pid_file.read_text()) if detach else code

    def _run(self, bundle: Path, arguments: list[str]) -> int:
        log = ["--log", str(self._log(bundle)), "--log-format", "json"]
        command = [self.program, "--root", str(self.state), *log, *arguments]
        if str(self.cgroup_mount) != _RUNC_CGROUP:
            script = 'mount --bind "$1" "$2"; shift 2; exec "$@"'
            command = ["unshare", "--mount", "sh", "-ec", script, "sh", str(self.cgroup_mount), _RUNC_CGROUP, *command]
        return self.call(command, bundle)

    def _log(self, bundle: Path) -> Path:
        return bundle / "log.json"


def _reason(log: Path) -> str:
    lines = log.read_text().splitlines() if log.exists() else []
    messages = [str(json.loads(line).get("msg")) for line in lines if '"error"' in line]
    return messages[-1] if messages else "it gave no reason"


def find_runc(state: Path, call: Call) -> Runc:
    """runc, ready for use. Raises GadgetError, which names what is missing, if this machine cannot run containers."""
    if sys.platform != "linux":
        raise GadgetError("the demo runs containers, which needs Linux", "a cluster: kubectl gadget trace open -A")
    if os.geteuid() != 0:
        raise GadgetError(
            "the demo starts containers and loads BPF programs, which needs root", "sudo kubectl gadget demo"
        )
    program = find_program("runc", "runc")
    mount = cgroup2_mount()
    if not os.access(mount, os.W_OK):
        raise GadgetError(
            f"cgroup v2 at {mount} is read-only here, so no container can be started",
            "run it on the machine, not in a container",
        )
    return Runc(program, state, mount, call)


def find_program(name: str, package: str) -> str:
    """The path of a program. Raises GadgetError, which names Debian's package, if it is missing."""
    found = shutil.which(name, path=_SEARCH)
    if found is None:
        raise GadgetError(f"the demo needs {name}, which is not installed", f"sudo apt-get install {package}")
    return found


def cgroup2_mount(mountinfo: Path = Path("/proc/self/mountinfo")) -> Path:
    """Where cgroup v2 is mounted (proc_pid_mountinfo(5)). Raises GadgetError if it is not."""
    for line in mountinfo.read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.startswith("cgroup2 "):
            return Path(fields.split()[4])
    raise GadgetError(
        "cgroup v2 is not mounted on this machine, and containers are distinguished by it",
        "boot with systemd.unified_cgroup_hierarchy=1, or: mount -t cgroup2 none /mnt",
    )
