"""A process that removes what a run has made when its client cannot, since it was killed.

It holds one end of a pipe: a line says what there is to remove, a second one that nothing is left to do, and an end
without that line that the client is gone. The traps: it lives as long as the run and beside it, so nothing is imported
before it is needed, not even `site`; and the kubeconfig may name another cluster by then, which is left alone.
"""

import sys

TYPE_CHECKING = False  # as in typing, which would take longer to import than all else here
if TYPE_CHECKING:
    import subprocess

    from kubectl_gadget.cluster.api.kubeconfig import Cluster

_DONE = b"done\n"
_END_SECONDS = 5.0


class Reaper:
    """The client's end."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process

    def release(self, done: bool) -> None:
        """At the end of a run: nothing is left to remove, or the process goes on trying, when not `done`. Blocks."""
        import subprocess

        assert self.process.stdin is not None
        try:
            with self.process.stdin as pipe:
                if not done:
                    return
                pipe.write(_DONE)
            self.process.wait(_END_SECONDS)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            return  # somebody has killed or stopped it


def start(cluster: "Cluster", namespace: str, run: str) -> Reaper:
    """Begins to watch over `run`. Blocks for the time that a process takes to start. Raises OSError."""
    import json
    import subprocess
    from dataclasses import asdict

    order = {"server": cluster.server, "kube": asdict(cluster.options), "namespace": namespace, "run": run}
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Neither Ctrl-C nor the terminal's end is meant for it.
        start_new_session=True,
        creationflags=getattr(subprocess, "DETACHED_PROCESS", 0),
        bufsize=0,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(order).encode() + b"\n")
    return Reaper(process)


def main() -> None:
    """Waits, and then does what is left to do."""
    import signal

    # It ends with its client. Those who end all of a user's processes at once shall not end this one first.
    ignored = [getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGTERM") if hasattr(signal, name)]
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    order, _, answer = sys.stdin.buffer.read().partition(b"\n")
    if answer == _DONE or not order:
        return
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    import asyncio
    import site

    site.main()  # where the packages are
    from kubectl_gadget.cluster.agents.removal import remove_as_ordered

    asyncio.run(remove_as_ordered(order))


if __name__ == "__main__":
    main()
