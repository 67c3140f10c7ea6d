"""The agent of this machine, as a child process over pipes.

It is the same program that runs in a pod. The trap: a terminal's Ctrl-C goes to the whole process group, so the child
gets a session of its own and learns of the end from its input.
"""

import asyncio
import os
import sys

from kubectl_gadget import background_tasks
from kubectl_gadget.errors import AgentError, GadgetError
from kubectl_gadget.python_process import module_command

_PIECE = 1 << 20
_END_SECONDS = 3.0


class LocalStream:
    """A child process that runs one agent session."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._stderr = bytearray()
        self._collector = background_tasks.start(self._collect_stderr(), "stderr of the local agent", self._unheard)

    @property
    def stderr_tail(self) -> str:
        return self._stderr[-2000:].decode(errors="replace").strip()

    async def receive(self) -> bytes:
        assert self._process.stdout is not None
        return await self._process.stdout.read(_PIECE)

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
    process = await asyncio.create_subprocess_exec(
        *module_command("kubectl_gadget.agent", what, *(("--local",) if what == "session" else ())),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=2 * _PIECE,
        start_new_session=True,
        env={**os.environ, "KUBECTL_GADGET_HOST": "", "KUBECTL_GADGET_CLIENT": str(os.getpid())},
    )
    return LocalStream(process)
