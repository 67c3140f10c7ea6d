"""The process of the agent on this machine, which may start before this program has read its command line.

Both take as long, so they do it at the same time. Until it gets a request, the agent only follows cgroups, and it ends
with its input. This is imported before everything else, so it imports little.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

_PIPE_BYTES = 64 << 20
"""Room in the pipe for events while this process gets no CPU time; beyond it, the agent holds them."""
_INPUT_BYTES = 1 << 20
"""Room for a request, so that sending it does not wait until the agent reads."""
_NEVER = ("--help", "-h", "--version", "bcc", "bpftrace")
"""Words of command lines that do not need a session here."""

_early: "LocalAgent | None" = None


class LocalAgent:
    """A child process that runs a session or another command of the agent; `output` is our end of its output, which
    does not block. Raises OSError."""

    is_asked = False
    """True if it was given a request"""
    unsent = b""
    """what is left of it: the pipe was full"""

    def __init__(self, what: str = "session") -> None:
        import subprocess  # takes 3 ms

        from kubectl_gadget.python_process import agent_command

        self.what = what
        self.output, theirs = _large_pipe()
        try:
            self.process = subprocess.Popen(
                agent_command(what, *(("--local",) if what == "session" else ())),
                stdin=subprocess.PIPE,
                stdout=theirs,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
                env={**os.environ, "KUBECTL_GADGET_HOST": "", "KUBECTL_GADGET_CLIENT": str(os.getpid())},
            )
        except BaseException:
            os.close(self.output)
            raise
        finally:
            os.close(theirs)
        assert self.process.stdin is not None
        _enlarge(self.process.stdin.fileno(), _INPUT_BYTES)

    def ask(self, frames: bytes) -> None:
        """Sends a request, or the part that the pipe takes now."""
        assert self.process.stdin is not None
        input, written = self.process.stdin.fileno(), 0
        os.set_blocking(input, False)
        with suppress(OSError):  # if the agent has ended, whoever reads its output sees it
            written = os.write(input, frames)
        self.is_asked, self.unsent = True, frames[written:]


def start_early(words: Sequence[str]) -> None:
    """Starts the agent if this command line will probably need it."""
    global _early
    own = words[: words.index("--")] if "--" in words else words
    if sys.platform == "linux" and "--local" in own and not any(word in _NEVER for word in own):
        with suppress(OSError):  # reported when it is started again
            _early = LocalAgent()


def ask(frames: bytes) -> None:
    """Sends the agent that the run will take its request. Raises OSError when none can be started."""
    global _early
    _early = _early or LocalAgent()
    _early.ask(frames)


def take(what: str) -> LocalAgent:
    """Returns the agent that was started early, once, or a new one."""
    global _early
    early, _early = _early, None
    return early if early is not None and early.what == what else LocalAgent(what)


def _large_pipe() -> tuple[int, int]:
    """Returns both ends of a pipe: ours, which does not block, and the child's. Without CAP_SYS_RESOURCE it is as large
    as the system allows all users."""
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    _enlarge(ours, _PIPE_BYTES, 1 << 20)
    return ours, theirs


def _enlarge(pipe: int, *sizes: int) -> None:
    """Sets the first of these sizes that the system allows."""
    import fcntl  # not on Windows

    for size in sizes:
        with suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, size)
            return
