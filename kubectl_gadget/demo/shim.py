"""The process above all containers of the demo: it is to them what containerd's shim is, and removes them when its
client is gone. It holds their network, too, if they have one: a network namespace is gone with its last process, and
takes bridges and cables along, so nothing of it can be left.

Requests come on standard input, one JSON object a line, `{"command": […], "bundle": …}`; each is answered by a line
with the command's exit code, and a line before all others says that it can begin. End-of-file, which comes when the
client closes the pipe or dies in whatever way, ends it: it sweeps. Containers are left to it as to a shim, and it
works in a bundle's folder as a shim does; by both the agent finds bundles. The trap: it inherits the lock on the state
folder, so that a next run does not start in the middle of a sweep.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from kubectl_gadget.demo.sweep import sweep

_PR_SET_CHILD_SUBREAPER = 36
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    """`python -m kubectl_gadget.demo.shim STATE CGROUP [network]`. With `network`, its own network is another one than
    the machine's, and pods may be connected with it. Returns 1 when something could not be removed."""
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
        # A pipe here would stay open for as long as the container runs, which inherits it.
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
    """Takes leave of containers that ended since the last time."""
    with contextlib.suppress(ChildProcessError):  # there are no children at all
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            continue


if __name__ == "__main__":
    sys.exit(main())
