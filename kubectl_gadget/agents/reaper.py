"""A process that removes a run's objects when its client cannot, because it was killed.

It reads from a pipe: the first line says what to remove, a second one that nothing is left to do. An end of the pipe
without the second line means that the client is gone. The traps: it runs beside the client for the whole run, so
nothing is imported before it is needed, not even `site`; and the kubeconfig may point to another cluster by then, which
must not be touched.
"""

import sys

TYPE_CHECKING = False  # as in typing, which would take longer to import than everything else here
if TYPE_CHECKING:
    import subprocess

    from kubectl_gadget.kube.kubeconfig import Cluster

_DONE = b"done\n"
_END_SECONDS = 5.0


class Reaper:
    """The client's side."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process

    def release(self, done: bool) -> None:
        """Called at the end of a run. `done`: nothing is left to remove; otherwise the process keeps trying. Blocks."""
        import subprocess

        assert self.process.stdin is not None
        try:
            with self.process.stdin as pipe:
                if not done:
                    return
                pipe.write(_DONE)
            self.process.wait(_END_SECONDS)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            return  # something has killed or stopped it


def start(cluster: "Cluster", namespace: str, run: str) -> Reaper:
    """Starts to watch over `run`. Blocks while the process starts. Raises OSError."""
    import json
    import subprocess
    from dataclasses import asdict

    order = {"server": cluster.server, "kube": asdict(cluster.options), "namespace": namespace, "run": run}
    from kubectl_gadget.python_process import is_self_contained, module_command

    process = subprocess.Popen(
        module_command(__name__) if is_self_contained() else [sys.executable, "-I", "-S", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Neither Ctrl-C nor the end of the terminal should reach it.
        start_new_session=True,
        creationflags=getattr(subprocess, "DETACHED_PROCESS", 0),
        bufsize=0,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(order).encode() + b"\n")
    return Reaper(process)


def main() -> None:
    """Waits for the client's end, and then removes what is left."""
    import signal

    # It ends with its client. A signal to all of a user's processes must not end this one first.
    ignored = [getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGTERM") if hasattr(signal, name)]
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    order, _, answer = sys.stdin.buffer.read().partition(b"\n")
    if answer == _DONE or not order:
        return
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    import asyncio

    if not getattr(sys, "frozen", False):
        import site

        site.main()  # adds the installed packages to the path
    from kubectl_gadget.agents.shared_namespace import remove_as_ordered

    asyncio.run(remove_as_ordered(order))


if __name__ == "__main__":
    main()
