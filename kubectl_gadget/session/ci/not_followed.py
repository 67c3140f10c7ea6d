"""Programs by which COMMAND asks a daemon to start processes, which are not COMMAND's and are not seen.

The trap: a program may talk to a daemon by itself (through a library or a socket). So even if none of these programs
was executed, processes may have been missed.
"""

from collections.abc import Iterable, Iterator
from posixpath import basename

from kubectl_gadget.findings.activity import SeenProcess

_DAEMONS = {
    **dict.fromkeys(("docker", "docker-compose", "docker-buildx", "buildctl", "kind", "k3d"), "containers"),
    **dict.fromkeys(("nerdctl", "ctr", "crictl"), "containers"),
    **dict.fromkeys(("systemd-run", "systemctl", "machinectl", "at", "batch"), "processes"),
}
"""By the program that asks: what a daemon starts for it. podman and buildah start containers themselves."""


def not_followed(processes: Iterable[SeenProcess]) -> Iterator[str]:
    """Says what may have been started outside of COMMAND's processes, one line for each kind of program."""
    asked: dict[str, set[str]] = {}
    for process in processes:
        name = basename(process.program)
        if name in _DAEMONS:
            asked.setdefault(_DAEMONS[name], set()).add(name)
    for what, names in sorted(asked.items()):
        yield (
            f"COMMAND ran {', '.join(sorted(names))}: {what} that a daemon starts for it are not its processes, and "
            "were not traced; -A traces all containers of this machine, --host all of its processes"
        )
