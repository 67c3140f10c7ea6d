"""The agent of this machine, as a child process over pipes.

It is the same program that runs in a pod. The traps: a terminal's Ctrl-C goes to the whole process group, so the child
gets a session of its own and learns of the end from its input. And each system call gives the interpreter to the thread
that prints, which may keep it for long on a busy machine: so the pipe is large, and few calls read much.
"""

import asyncio
import fcntl
import os
import sys
from contextlib import suppress

from kubectl_gadget import background_tasks
from kubectl_gadget.errors import AgentError, GadgetError
from kubectl_gadget.python_process import module_command

_PIPE_BYTES = 64 << 20
"""What waits in the pipe while this process gets no CPU time, before events wait in the agent's ring and are lost."""
_LEAST, _MOST = 256 << 10, 16 << 20
"""Bytes that one read takes: the size grows while reads are full."""
_END_SECONDS = 3.0


class LocalStream:
    """A child process that runs one agent session. `output` is its standard output, which the object owns."""

    def __init__(self, process: asyncio.subprocess.Process, output: int) -> None:
        self._process = process
        self._output = output
        self._most = _LEAST
        self._stderr = bytearray()
        self._collector = background_tasks.start(self._collect_stderr(), "stderr of the local agent", self._unheard)

    @property
    def stderr_tail(self) -> str:
        return self._stderr[-2000:].decode(errors="replace").strip()

    async def receive(self) -> bytes:
        await asyncio.sleep(0)  # other tasks have their turn, also while there is always something to read
        while True:
            try:
                data = os.read(self._output, self._most)
            except BlockingIOError:
                await self._readable()
            else:
                self._most = min(4 * self._most, _MOST) if len(data) == self._most else _LEAST
                return data

    async def send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
            await self._process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            raise AgentError(f"the local agent has ended: {self.stderr_tail or 'it printed nothing'}") from None

    async def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), _END_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._collector
        os.close(self._output)

    async def _readable(self) -> None:
        loop, readable = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._output, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self._output)

    def _unheard(self, error: GadgetError) -> None:
        self._stderr += f"\nits output cannot be read: {error}".encode()

    async def _collect_stderr(self) -> None:
        assert self._process.stderr is not None
        while piece := await self._process.stderr.read(4096):
            self._stderr += piece
            del self._stderr[:-65536]


async def open_local(what: str = "session") -> LocalStream:
    """Starts the agent on this machine, for a session or for another of its commands.

    Raises AgentError when this machine does not run Linux.
    """
    if sys.platform != "linux":
        raise AgentError(
            f"this machine runs {sys.platform}, and only Linux has eBPF",
            "use a cluster: set KUBECONFIG or --kubeconfig and leave out --local",
        )
    output, theirs = _large_pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *module_command("kubectl_gadget.agent", what, *(("--local",) if what == "session" else ()), bare=True),
            stdin=asyncio.subprocess.PIPE,
            stdout=theirs,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "KUBECTL_GADGET_HOST": "", "KUBECTL_GADGET_CLIENT": str(os.getpid())},
        )
    except BaseException:
        os.close(output)
        raise
    finally:
        os.close(theirs)
    return LocalStream(process, output)


def _large_pipe() -> tuple[int, int]:
    """Returns both ends of a pipe: ours, which does not block, and the child's. Without CAP_SYS_RESOURCE it is as large
    as the system allows all users."""
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    for size in (_PIPE_BYTES, 1 << 20):
        with suppress(OSError):
            fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, size)
            break
    return ours, theirs
