"""The parent process of all demo containers: it acts like containerd's shim, and removes the containers when its client
has ended. It also holds their network, if they have one: a network namespace disappears with its last process, together
with its bridges and cables, so nothing is left behind.

Requests come on standard input, one JSON object per line, `{"command": […], "bundle": …}`; each is answered by a line
with the command's exit code. A first line says that the shim is ready. End-of-file, which comes when the client closes
the pipe or ends in any other way, makes it remove everything and exit. The agent finds bundles by two things that
containerd's shim does, so this one does them, too: it adopts the containers' processes, and its working directory is a
bundle's folder. It inherits the lock on the state folder, so that another run does not start in the middle of
a sweep.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from kubectl_gadget.demo.runc import sweep

_PR_SET_CHILD_SUBREAPER = 36
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    """`python -m kubectl_gadget.demo.shim STATE CGROUP [network]`. With `network`, it has its own network namespace,
    and pods may be connected to it. Returns 1 if something could not be removed."""
    state, cgroup = Path(sys.argv[1]), Path(sys.argv[2])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        sys.stderr.write("the kernel refuses to make this process a subreaper\n")
        return 1
    if "network" in sys.argv[3:] and _LIBC.unshare(_CLONE_NEWNET):
        sys.stderr.write(f"the kernel refuses a network namespace: {os.strerror(ctypes.get_errno())}\n")
        return 1
    sys.stdout.write("0\n")
    sys.stdout.flush()
    for line in sys.stdin:
        request = json.loads(line)
        os.chdir(request["bundle"])
        # The container would inherit a pipe here and keep it open as long as it runs.
        done = subprocess.run(
            request["command"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        reap()
        sys.stdout.write(f"{done.returncode}\n")
        sys.stdout.flush()
    try:
        sweep(state, cgroup)
    except (OSError, TimeoutError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def reap() -> None:
    """Reaps containers that have ended since the last call."""
    with contextlib.suppress(ChildProcessError):  # there are no children
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            continue


if __name__ == "__main__":
    sys.exit(main())
